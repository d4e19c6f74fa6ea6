// Types of the @std modules this project imports: the registry package that carries them ships none.
declare module "@std/assert" {
  export class AssertionError extends Error {}
  export function assert(condition: unknown, message?: string): asserts condition;
  export function assertEquals<T>(actual: T, expected: T, message?: string): void;
  export function assertNotEquals<T>(actual: T, expected: T, message?: string): void;
  export function assertAlmostEquals(
    actual: number,
    expected: number,
    tolerance?: number,
    message?: string,
  ): void;
  export function assertGreater<T>(actual: T, expected: T, message?: string): void;
  export function assertLess<T>(actual: T, expected: T, message?: string): void;
  export function assertMatch(actual: string, expected: RegExp, message?: string): void;
  export function assertStringIncludes(actual: string, expected: string, message?: string): void;
  export function assertThrows<E extends Error>(
    fn: () => unknown,
    errorClass?: new (...args: never[]) => E,
    includes?: string,
  ): E;
  export function assertRejects<E extends Error>(
    fn: () => Promise<unknown>,
    errorClass?: new (...args: never[]) => E,
    includes?: string,
  ): Promise<E>;
}
declare module "@std/cli/parse-args" {
  export interface ParseOptions {
    string?: readonly string[];
    boolean?: readonly string[];
    alias?: Record<string, string>;
    collect?: readonly string[];
    stopEarly?: boolean;
    unknown?: (arg: string, key?: string, value?: unknown) => unknown;
  }
  export function parseArgs(
    args: string[],
    options?: ParseOptions,
  ): { _: (string | number)[] } & Record<string, unknown>;
}
declare module "@std/path" {
  export function join(...parts: string[]): string;
  export function resolve(...parts: string[]): string;
  export function dirname(path: string): string;
  export function basename(path: string, suffix?: string): string;
  export function relative(from: string, to: string): string;
  export function toFileUrl(path: string): URL;
  export function fromFileUrl(url: string | URL): string;
  export function isAbsolute(path: string): boolean;
}
