// Work for the newest wish only: what still waits is cancelled, what has begun ends and is not shown if it is stale.

/** Returns `ask(value)`. `start(value, {signal, tell, isStale})` does the work. Only one runs at a time; of the values
 *  that come meanwhile the last is kept. A job that has begun is left to end, since cancelling it would end the worker
 *  process and all that it has loaded. */
export function newest(start) {
  let stop = null,
    next = null,
    isWaiting = false;
  const go = async (value) => {
    stop = new AbortController();
    isWaiting = false;
    const tell = (event) => {
      isWaiting = event === "waiting";
    };
    try {
      await start(value, { signal: stop.signal, tell, isStale: () => next !== null });
    } finally {
      stop = null;
      if (next !== null) {
        const [value] = next;
        next = null;
        go(value);
      }
    }
  };
  return (value) => {
    if (!stop) return go(value);
    next = [value];
    if (isWaiting) stop.abort();
  };
}

/** Calls `act` when nothing came for so many milliseconds. */
export function settled(act, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
}
