import { promisify } from 'node:util';

/**
 * The folders where pip installs packages for the `python3` on the PATH; empty if there is none or it doesn't answer.
 */
export async function sitePackages(): Promise<string[]> {
  const code =
    'import json, site, sysconfig; print(json.dumps([sysconfig.get_path("purelib"), site.getusersitepackages()]))';
  try {
    const { execFile } = await import('node:child_process');
    const { stdout } = await promisify(execFile)('python3', ['-c', code], { timeout: 5000 });
    return [...new Set(JSON.parse(stdout) as string[])];
  } catch {
    return [];
  }
}
