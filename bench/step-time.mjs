// Measures a language model's step, for decoder-steps.mjs and scripts/gpu-first-run.

export const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/**
 * Milliseconds between the tokens of sequences that generate together, as a caller sees it: the median of five
 * measurements of `steps` steps. Leaves the sequences with their `context` tokens.
 */
export async function timeSteps(sequences, context, steps) {
  const generate = async (maxTokens) => {
    const began = performance.now();
    await Promise.all(sequences.map((each) => each.generate({ maxTokens, temperature: 0, ignoreEos: true })));
    for (const each of sequences) each.truncate(context);
    return performance.now() - began;
  };
  // Both measurements include the first steps, in which not all rows take part.
  await generate(steps + 8);
  const times = [];
  for (let i = 0; i < 5; i++) times.push(((await generate(steps + 8)) - (await generate(8))) / steps);
  return median(times);
}
