// A mask in words: what is seen, what each of two objectives has to predict, and whether its sampler is fair.

const PICTURE = 224; // pixels of the picture that the words are about

/** A share of all patches, in per cent. */
export const per = (count, side) => `${((100 * count) / side ** 2).toFixed(0)} %`;

/** The three shares in a sentence. */
export const inWords = ({ seen, asked, neither }, side) =>
  `${per(seen.size, side)} seen, ${per(asked.size, side)} to be predicted, ${per(neither.size, side)} neither.`;

/** What can be done with the targets, by the kind of mask. */
export const HOW = {
  blocks: "Drag a block. Each is predicted on its own.",
  next: "Drag the patch along.",
  random: "Click or brush patches to hide or show them.",
};

/** What is to be said of the context; `usual` is how many patches the sampler left. */
export function contextWords({ kind, thinned }, { seen }, { usual, isMoved }) {
  if (kind !== "blocks") return kind === "next" ? "All that comes before, in reading order." : "What was left visible.";
  if (isMoved && seen.size !== usual)
    return `The dashed block without the targets. The sampler would thin it to ${usual} patches.`;
  if (!thinned.size) return "The dashed block without the targets.";
  return `The dashed block without the targets, less ${thinned.size} patches, so that all samples have as many.`;
}

const spread = (sizes) => {
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)];
  return low === high ? `${low}` : `${low} to ${high}`;
};

/** What two camps have to predict under this mask: [camp, name, sentence]. */
export function predictions({ side, kind }, { seen, asked, targets }) {
  const pixels = Math.round(PICTURE / side);
  const numbers = (3 * pixels ** 2).toLocaleString("en");
  const shape = `${pixels} × ${pixels} × 3 = ${numbers} numbers`;
  if (kind === "next") return nextPatch(seen.size, shape);
  const what = targets.length > 1 ? `For each of ${targets.length} blocks` : "For what is hidden";
  const size = spread(targets.map((each) => each.length));
  return [
    [
      "JEPA",
      "I-JEPA: embeddings",
      `${what} the embeddings of its ${size} patches, from the ${seen.size} patches that are seen. The targets are ` +
        "what a slowly moving copy of the encoder says with the whole picture before it; detail that cannot be " +
        "foretold may be left out of them.",
    ],
    [
      "generative",
      "MAE: pixels",
      `The pixels of the ${asked.size} patches, ${shape} each with a picture of ${PICTURE} pixels, from the same ` +
        `${seen.size}. Every detail counts, also what nobody can foretell.`,
    ],
  ];
}

const nextPatch = (before, shape) => [
  [
    "generative",
    "Next patch: pixels",
    `The pixels of patch ${before + 1}, ${shape} with a picture of ${PICTURE} pixels, from the ${before} before it. ` +
      "In training this is asked at every patch at once.",
  ],
  [
    "JEPA",
    "The same, of embeddings",
    `The embedding of patch ${before + 1}, from those of the ${before} before it. What nobody can foretell of its ` +
      "pixels need not be in it.",
  ],
];

/** What the two maps of a sampler show. */
export const FAIR = {
  blocks: "Blocks fit in more ways in the middle than at the border; left and right, top and bottom are alike.",
  reference: "The official sampler sees the upper left most, and its targets never reach the last row and column.",
  random: "Random patches prefer no place.",
};
