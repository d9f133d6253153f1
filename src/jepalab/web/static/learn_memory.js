// What the lesson remembers, in this browser alone. Where the browser keeps nothing, until the page is closed.

const KEY = "jepalab lesson";

const isThing = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Parts of things by id, as in memory.all("cards"). `place` gives the storage and may throw. */
export function openMemory(place = () => localStorage) {
  let held = {};
  const read = () => {
    try {
      const stored = JSON.parse(place().getItem(KEY) ?? "{}");
      if (isThing(stored)) held = stored;
    } catch { /* no storage, or something else wrote there: what is held goes on */ }
    return held;
  };
  const write = () => {
    try {
      place().setItem(KEY, JSON.stringify(held));
      return true;
    } catch {
      return false;
    }
  };
  const all = (part) => (isThing(read()[part]) ? held[part] : {});
  return {
    all,
    lasts: (read(), write()),
    put(part, id, value) {
      held = { ...read(), [part]: { ...all(part), [id]: value } };
      write();
    },
    forget(...parts) {
      const kept = Object.entries(read()).filter(([part]) => parts.length && !parts.includes(part));
      held = Object.fromEntries(kept);
      write();
    },
  };
}
