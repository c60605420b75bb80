export { normalNumbers, uniformNumbers } from '../../../dist/base/random.js';
