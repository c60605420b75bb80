// How long a step of a language model takes, for decoder-steps.mjs and scripts/gpu-first-run.

export const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/**
 * What a caller waits for between the tokens of sequences that answer together, milliseconds: the median of five times `steps`.
 * The sequences are left with the `context` tokens that they have.
 */
export async function timeSteps(sequences, context, steps) {
  const generate = async (maxTokens) => {
    const began = performance.now();
    await Promise.all(sequences.map((each) => each.generate({ maxTokens, temperature: 0, ignoreEos: true })));
    for (const each of sequences) each.truncate(context);
    return performance.now() - began;
  };
  // The first steps, in which not all rows are, are in both.
  await generate(steps + 8);
  const times = [];
  for (let i = 0; i < 5; i++) times.push(((await generate(steps + 8)) - (await generate(8))) / steps);
  return median(times);
}
