// When a flashcard comes back: SM-2 (Wozniak 1990) behind four answers. Pure functions of states and days.

/** The four answers, with the quality (0 to 5) that SM-2 takes them for. */
export const GRADES = [
  { key: "1", name: "again", words: "Again", quality: 1 },
  { key: "2", name: "hard", words: "Hard", quality: 3 },
  { key: "3", name: "good", words: "Good", quality: 4 },
  { key: "4", name: "easy", words: "Easy", quality: 5 },
];

const FIRST = { ease: 2.5, streak: 0, interval: 0, due: null };
const LEAST_EASE = 1.3;

/** The number of a local calendar day, so that a day is a day also where clocks change. */
export function dayOf(date) {
  return Math.round(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86_400_000);
}

/** The calendar day of such a number, as people here write it. */
export function dayInWords(day) {
  return new Date(day * 86_400_000).toLocaleDateString("en", { timeZone: "UTC", day: "numeric", month: "long" });
}

/** A card's state after an answer of this quality on day `today`; `state` is undefined for a card never seen. */
export function schedule(state, quality, today) {
  const { ease, streak, interval } = { ...FIRST, ...state };
  if (quality < 3) return { ease, streak: 0, interval: 0, due: today };
  const missing = 5 - quality;
  const eased = Math.max(LEAST_EASE, ease + 0.1 - missing * (0.08 + missing * 0.02));
  const days = streak === 0 ? 1 : streak === 1 ? 6 : Math.ceil(interval * eased);
  return { ease: eased, streak: streak + 1, interval: days, due: today + days };
}

/** What a card is today: 0 due, 1 new, 2 failed today and to be shown again at the end, 3 not yet due. */
export function stage(state, today) {
  if (!state) return 1;
  if (state.due > today) return 3;
  return state.streak === 0 && state.due === today ? 2 : 0;
}

/** The cards in the order in which to learn them today; `states` is keyed by the cards' fronts. */
export function queue(cards, states, today) {
  const rank = (card) => {
    const state = states[card.front];
    return [stage(state, today), state?.due ?? 0, state?.seen ?? 0];
  };
  const ranked = cards.map((card, place) => ({ card, keys: [...rank(card), place] }));
  ranked.sort((a, b) => a.keys.reduce((found, key, i) => found || key - b.keys[i], 0));
  return ranked.map(({ card }) => card);
}
