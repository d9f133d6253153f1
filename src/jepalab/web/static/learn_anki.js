// The cards as a text file that Anki imports.

/** A field: in quotes where it holds a tab, a quote or a line break, or would be taken for a comment. */
function ankiField(text) {
  return /["\t\n\r]|^#/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Header lines and a line for each card: front, back, tag. */
export function ankiText(cards) {
  const head = ["#separator:tab", "#html:false", "#columns:Front\tBack\tTags", "#tags column:3"];
  const rows = cards.map((card) =>
    [card.front, card.back, `jepalab ${card.topic.replace(/\W+/g, "-")}`].map(ankiField).join("\t"));
  return [...head, ...rows].join("\n") + "\n";
}
