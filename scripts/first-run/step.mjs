// Runs one step in the process that main.mjs started for it. Findings go to main.mjs at once, so that none are lost if
// the process ends early.
import { steps } from './steps.mjs';

const began = performance.now();
const { folder, quick, seconds } = JSON.parse(process.env.GPU_FIRST_RUN);
const step = steps.find(({ name }) => name === process.argv[2]);
let tables = 0;
const kept = [];

/** The functions and values that a step works with. */
const context = {
  /** A folder for models and engines that later steps use. */
  folder,
  quick,
  secondsLeft: () => seconds - (performance.now() - began) / 1000,
  /** Disposes a resource when the step ends. */
  async keep(promise) {
    kept.push(await promise);
    return kept.at(-1);
  },
  /** Only prints. */
  say: (text) => console.log(text),
  /** Adds a line of Markdown to the findings. */
  note(line) {
    console.log(line);
    process.send({ line });
  },
  /**
   * Begins a table in the findings.
   * @returns a function that adds a row to it
   */
  table(...columns) {
    const id = tables++;
    process.send({ table: { id, columns } });
    return (...row) => {
      console.log(columns.map((column, i) => `${column}: ${row[i]}`).join(', '));
      process.send({ id, row });
    };
  },
  /** Reports a failure unless `condition` holds; the step continues. */
  check(condition, message) {
    if (condition) return;
    console.log(`FAILED: ${message}`);
    process.send({ failure: message });
  },
  /** Reports the machine: { line, gpu }. */
  machine: (machine) => process.send({ machine }),
};

try {
  await step.run(context);
  for (const each of kept.toReversed()) await each.dispose();
} catch (error) {
  console.log(error.stack);
  process.send({ failure: `${error.code ?? error.name}: ${error.message}` });
}
process.send({ done: true }, () => process.exit(0));
