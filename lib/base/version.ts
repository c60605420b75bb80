/** This package's version. */
export const { version } = require('../../package.json') as { version: string };
