// One step, in the process that main.mjs gave it: what it finds goes to main.mjs as it is found, so that nothing is lost when
// the process ends early.
import { steps } from './steps.mjs';

const began = performance.now();
const { folder, quick, seconds } = JSON.parse(process.env.GPU_FIRST_RUN);
const step = steps.find(({ name }) => name === process.argv[2]);
let tables = 0;
const kept = [];

/** What a step has to work with. */
const context = {
  /** Models and engines that steps leave for those after them. */
  folder,
  quick,
  secondsLeft: () => seconds - (performance.now() - began) / 1000,
  /** Disposes of what it is given when the step is over. */
  async keep(promise) {
    kept.push(await promise);
    return kept.at(-1);
  },
  /** Prints only. */
  say: (text) => console.log(text),
  /** A line of Markdown for the findings. */
  note(line) {
    console.log(line);
    process.send({ line });
  },
  /** Begins a table of the findings. @returns what adds a row to it */
  table(...columns) {
    const id = tables++;
    process.send({ table: { id, columns } });
    return (...row) => {
      console.log(columns.map((column, i) => `${column}: ${row[i]}`).join(', '));
      process.send({ id, row });
    };
  },
  /** Notes a failure, unless `condition` holds; the step goes on. */
  check(condition, message) {
    if (condition) return;
    console.log(`FAILED: ${message}`);
    process.send({ failure: message });
  },
  /** What machine it is: { line, gpu }. */
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
