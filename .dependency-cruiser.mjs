// The allowed imports in lib/, which `npm run lint` checks. A room only imports rooms above it in this list; type
// imports count too.
const rooms = [
  'base',
  'system',
  'onnx/format',
  'onnx/graph',
  'onnx/passes',
  'onnx/precision',
  'onnx/decoder',
  'onnx/models',
  'execution',
  'masks',
  'engine',
  'session',
  'compare',
  'text',
  'generation',
  'apps',
];
/** The modules that users import. They are above all rooms except the command line and benchmarks, which use them. */
const entries = '^lib/(?:index|onnx)\\.m?ts$';

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    {
      name: 'no-circle',
      comment: 'Merge files that import each other, or move the code that they share.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    ...rooms.slice(0, -1).map((room, i) => ({
      name: `${room}-imports-rooms-above-it`,
      comment: `lib/${room} imports from itself${i === 0 ? '' : ` and from ${rooms.slice(0, i).join(', ')}`}.`,
      severity: /** @type {const} */ ('error'),
      from: { path: `^lib/${room}/` },
      to: { path: rooms.slice(i + 1).map((below) => `^lib/${below}/`) },
    })),
    {
      name: 'rooms-import-no-entry',
      comment: 'Only apps import the public API, as its users.',
      severity: 'error',
      from: { path: '^lib/(?!apps/)[^/]+/' },
      to: { path: entries },
    },
    {
      name: 'the-command-line-uses-the-public-API',
      comment: 'Commands only read flags and print. The work belongs in the public API or an app.',
      severity: 'error',
      from: { path: '^lib/apps/cli/' },
      to: { path: '^lib/', pathNot: [entries, '^lib/apps/'] },
    },
    {
      name: 'apps-know-no-command-line',
      comment: 'Apps return results, which other programs may show in other ways.',
      severity: 'error',
      from: { path: '^lib/apps/(?!cli/)' },
      to: { path: '^lib/apps/cli/' },
    },
    {
      name: 'no-file-outside-a-room',
      comment: 'Every file of lib/ is in a room, but for the entries.',
      severity: 'error',
      from: { path: '^lib/', pathNot: [entries, ...rooms.map((room) => `^lib/${room}/`)] },
      to: {},
    },
  ],
  options: {
    includeOnly: '^lib/',
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'types'],
    },
  },
};
