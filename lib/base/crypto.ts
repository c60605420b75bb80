// node:crypto takes longer to load than this package, so it is loaded when one of these functions is first called.
const crypto = () => require('node:crypto') as typeof import('node:crypto');

export const createHash: typeof import('node:crypto').createHash = (...args) => crypto().createHash(...args);

export const randomBytes = (size: number): Buffer => crypto().randomBytes(size);
