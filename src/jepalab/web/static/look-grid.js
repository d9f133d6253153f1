// A mask on a grid of patches, as it can be moved by hand: which patches are seen, asked for, and neither.

/** The rectangle around these places: {row, column, rows, columns}. */
export function around(places, side) {
  const rows = places.map((place) => Math.floor(place / side)),
    columns = places.map((place) => place % side);
  const [row, column] = [Math.min(...rows), Math.min(...columns)];
  return { row, column, rows: Math.max(...rows) - row + 1, columns: Math.max(...columns) - column + 1 };
}

/** The places in a rectangle. */
export function inside(block, side) {
  const found = [];
  for (let row = block.row; row < block.row + block.rows; row++)
    for (let column = block.column; column < block.column + block.columns; column++) found.push(row * side + column);
  return found;
}

/** A mask of blocks out of a drawn one: the blocks can move; the context is what its own block leaves, without the
 *  places that the sampler had thinned out. */
function fromBlocks(drawn, side) {
  const blocks = drawn.targets.map((places) => around(places, side)),
    box = around(drawn.context, side);
  const known = new Set([...drawn.context, ...drawn.targets.flat()]);
  return {
    kind: "blocks",
    side,
    blocks,
    box,
    thinned: new Set(inside(box, side).filter((place) => !known.has(place))),
  };
}

/** A drawn mask as something that can be changed by hand. */
export function editable(drawn, { sampler, side }) {
  if (sampler === "random") return { kind: "random", side, seen: new Set(drawn.context) };
  if (sampler === "next") {
    const [[place]] = drawn.targets;
    return {
      kind: "next",
      side,
      blocks: [{ row: Math.floor(place / side), column: place % side, rows: 1, columns: 1 }],
    };
  }
  return fromBlocks(drawn, side);
}

/** Which places are seen, asked for and neither, as sets; and the places of each target block. */
export function parts(mask) {
  const { side } = mask,
    all = Array.from({ length: side * side }, (_, place) => place);
  let seen, targets;
  if (mask.kind === "random") {
    seen = new Set(mask.seen);
    targets = [all.filter((place) => !seen.has(place))];
  } else {
    targets = mask.blocks.map((block) => inside(block, side));
    const asked = new Set(targets.flat());
    seen =
      mask.kind === "next"
        ? new Set(all.filter((place) => place < targets[0][0]))
        : new Set(inside(mask.box, side).filter((place) => !asked.has(place) && !mask.thinned.has(place)));
  }
  const asked = new Set(targets.flat());
  return { seen, asked, targets, neither: new Set(all.filter((place) => !seen.has(place) && !asked.has(place))) };
}

/** The mask with a block moved to another place, as far as it fits; the first patch cannot be asked for next. */
export function moved(mask, which, row, column) {
  const { side } = mask,
    block = mask.blocks[which];
  const next = {
    ...block,
    row: Math.min(Math.max(row, 0), side - block.rows),
    column: Math.min(Math.max(column, 0), side - block.columns),
  };
  if (mask.kind === "next" && next.row === 0 && next.column === 0) next.column = 1;
  return { ...mask, blocks: mask.blocks.map((each, i) => (i === which ? next : each)) };
}

/** The mask with one patch shown or hidden; at least one of each kind stays. */
export function toggled(mask, place, isSeen) {
  const seen = new Set(mask.seen);
  if (isSeen) seen.add(place);
  else seen.delete(place);
  return seen.size && seen.size < mask.side ** 2 ? { ...mask, seen } : mask;
}

/** The outline of a set of places as an SVG path, in units of patches. */
export function outline(places, side) {
  const set = new Set(places);
  return places
    .map((place) => {
      const row = Math.floor(place / side),
        column = place % side;
      return (
        (set.has(place - side) ? "" : `M${column} ${row}h1`) +
        (set.has(place + side) ? "" : `M${column} ${row + 1}h1`) +
        (column && set.has(place - 1) ? "" : `M${column} ${row}v1`) +
        (column < side - 1 && set.has(place + 1) ? "" : `M${column + 1} ${row}v1`)
      );
    })
    .join("");
}
