// Two runs side by side over one picture: the frame that "what an embedding holds" and "neighbours" share.

import { el, work, workButton } from "./dom.js";
import { newest } from "./look-latest.js";
import { chooser, current, onPicture, pixelsAt } from "./look-picture.js";
import { chosenPair, heading, missing, pairChooser, runsOf } from "./look-runs.js";

const COMMANDS = ["jepalab train ijepa --data FOLDER --steps 2000", "jepalab train mae --data FOLDER --steps 2000"];

/** Fills `body`: a picture, two runs, a button, and a card for each run that `draw(answer, run)` fills.
 *
 *  task   of the worker, asked once for each run; more() adds to its arguments.
 *  extra  further controls beside the button. */
export async function openSides(body, { task, words, draw, more = () => ({}), extra = [] }) {
  const line = el("p.state", { role: "status" }, "Reading which runs there are …");
  body.replaceChildren(line);
  const runs = await runsOf("pictures", { again: true });
  if (!runs.length) {
    body.replaceChildren(
      missing(
        "No run on still pictures has ended here yet. FOLDER is a folder of pictures, in sub-folders by class or not:",
        ...COMMANDS,
      ),
    );
    return {};
  }
  const cards = el("div.look-runs"),
    shown = [null, null];
  let isWanted = false;
  const one = async (at, { run, encoder }, again, { signal, tell, say }) => {
    const key = JSON.stringify([run.name, encoder, current().serial, more()]);
    if (!again && shown[at]?.key === key) return;
    say(`${run.label}: waiting …`);
    const hear = (event, value) => {
      tell(event);
      if (event === "progress") say(`${run.label}: ${value}`);
    };
    let inside;
    try {
      const given = { run: run.name, encoder, picture: pixelsAt(run.side), ...more() };
      inside = draw(await work(task, given, { signal, tell: hear }), run);
      shown[at] = { key };
    } catch (error) {
      if (signal.aborted) throw error;
      inside = [el("p.state.bad", { role: "alert" }, error.message)];
      shown[at] = null;
    }
    cards.children[at].replaceChildren(heading(run), ...inside);
  };
  cards.append(el("article.card.look-run"), el("article.card.look-run"));
  cards.hidden = true;
  const button = workButton(words, (signal, say) => all(signal, say, true));
  const all = async (signal, say, again, tell = () => {}, isStale = () => false) => {
    isWanted = true;
    for (const [at, side] of chosenPair().entries()) {
      if (isStale()) return "";
      cards.hidden = false;
      await one(at, side, again, { signal, tell, say });
    }
    return "";
  };
  const follow = newest(async (_, { signal, tell, isStale }) => {
    const say = (text) => {
      button.line.textContent = text;
      button.line.classList.remove("bad");
    };
    try {
      say(await all(signal, say, false, tell, isStale));
    } catch (error) {
      if (isStale()) return;
      say(error.message);
      button.line.classList.add("bad");
    }
  });
  const { node, offer } = chooser("Picture, for both");
  const offers = async () => {
    const [{ run }] = chosenPair();
    try {
      offer(await work("specimens", { run: run.name }), run.label);
    } catch {
      /* the run itself will say what is wrong with it when it is looked into */
    }
  };
  let offered = "";
  const changed = () => {
    const [{ run }] = chosenPair();
    if (offered !== run.name) {
      offered = run.name;
      offers();
    }
    if (isWanted) follow(null);
  };
  body.replaceChildren(
    pairChooser(runs, changed),
    node,
    el("div.row", {}, button.button, ...extra, button.line),
    cards,
  );
  onPicture(() => {
    if (isWanted && !body.closest("[hidden]")) follow(null);
  });
  changed();
  return {
    show: () => {
      if (isWanted) follow(null);
    },
    again: () => {
      isWanted = true;
      follow(null);
    },
  };
}
