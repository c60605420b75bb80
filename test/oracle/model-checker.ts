import { type ChildProcessByStdio, spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { pythonOracle } from '../../scripts/python-oracle.mjs';

/**
 * onnx's checker and type inference (check_models.py) in one Python process for as many models as one likes: importing
 * onnx takes a second, checking a small model a millisecond.
 */
export class ModelChecker {
  readonly #python: ChildProcessByStdio<Writable, Readable, null>;
  readonly #answers: AsyncIterator<string>;
  #last: Promise<unknown> = Promise.resolve();

  constructor() {
    this.#python = spawn('python3', [path.join(import.meta.dirname, 'check_models.py')], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, PYTHONPATH: pythonOracle() },
    });
    this.#answers = createInterface(this.#python.stdout)[Symbol.asyncIterator]();
  }

  /** What check_models.py prints of a model. Rejects with the checker's message for one that is not valid. */
  check(model: Uint8Array): Promise<unknown> {
    const answer = this.#last.then(() => this.#ask(model));
    this.#last = answer.catch(() => {});
    return answer;
  }

  /** Ends the process. */
  close(): void {
    this.#python.stdin.end();
  }

  async #ask(model: Uint8Array): Promise<unknown> {
    this.#python.stdin.write(`${model.length}\n`);
    this.#python.stdin.write(model);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error('check_models.py ended before it answered.');
    const answer = JSON.parse(value);
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer;
  }
}
