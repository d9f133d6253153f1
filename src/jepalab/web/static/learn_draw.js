// Which exercise comes next, and whether an answer is right. Pure functions.

/** The next item: the fixed ones in their order, then one not yet seen, then one that went wrong, then any; never the
 *  one just shown. `record` holds { tries, first, right } by the items' ids; `random` gives numbers in [0, 1). */
export function draw(items, record, last, random) {
  const others = items.filter((item) => item.id !== last);
  const fresh = others.filter((item) => !record[item.id]);
  const fixed = fresh.find((item) => item.fixed);
  if (fixed) return fixed;
  const wrong = others.filter((item) => record[item.id] && !record[item.id].right);
  const pool = [fresh, wrong, others, items].find((some) => some.length);
  return pool[Math.floor(random() * pool.length)];
}

/** What became of an item after one more answer. */
export function record(before, right) {
  return { tries: (before?.tries ?? 0) + 1, first: before ? before.first : right, right };
}

/** "12 of 42 seen, 9 right at once" */
export function progress(items, records) {
  const seen = items.filter((item) => records[item.id]);
  if (!seen.length) return "";
  const first = seen.filter((item) => records[item.id].first).length;
  return `${seen.length} of ${items.length} seen, ${first} right at once`;
}

/** An answer to "what does the loss compare?" against the audit's. */
export function checkStep(step, label, space) {
  return { label: label === step.label, space: step.spaces.includes(space) };
}

/** An answer to the scope test: whether the scope is right, and whether the instrument or category is. */
export function checkScope(item, answer, instruments) {
  return { scope: (answer in instruments) === (item.scope === "in"), by: item.by.includes(answer) };
}
