// Measures how late a timer fires while other work runs: the time that a user's own callbacks would wait.

/** Nearest rank; `p` is 0 to 1. */
export const percentile = (values, p) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * p))];

/** Repeats `work` for some seconds, and returns the delays of a 2 ms timer meanwhile. */
export async function eventLoopDelay(work, seconds) {
  const delays = [];
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    delays.push(now - last - 2);
    last = now;
  }, 2);
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) await work();
  await new Promise((resolve) => setTimeout(resolve, 5)); // so that a late probe is counted
  clearInterval(timer);
  return { longestMs: percentile(delays, 1), p99Ms: percentile(delays, 0.99) };
}
