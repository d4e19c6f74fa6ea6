/**
 * Random numbers as a pure function of keys: `new Rng(seed, "view", index)` draws the same numbers on every machine,
 * whatever was drawn before. (sfc32 of Chris Doty-Humphrey's PractRand, seeded by an FNV-1a hash of the keys.)
 */
export class Rng {
  #a = 0;
  #b = 0;
  #c = 0;
  #d = 1;

  constructor(...keys: (string | number)[]) {
    const text = keys.join("\u0000");
    const hash = (basis: number) => {
      let h = basis;
      for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
      return h | 0;
    };
    [this.#a, this.#b, this.#c] = [hash(0x811c9dc5), hash(0x2545f491), hash(0x9e3779b9)];
    for (let i = 0; i < 15; i++) this.bits();
  }

  /** 32 random bits as a signed integer. */
  bits(): number {
    const t = (this.#a + this.#b + this.#d) | 0;
    this.#d = (this.#d + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + t | 0;
    return t;
  }

  /** The state as four numbers of 32 bits, for draws in the native library. */
  state(): [number, number, number, number] {
    return [this.#a >>> 0, this.#b >>> 0, this.#c >>> 0, this.#d >>> 0];
  }

  /** Uniform in [low, high), 32 bits of resolution. */
  uniform(low = 0, high = 1): number {
    return low + (high - low) * ((this.bits() >>> 0) / 4294967296);
  }

  /** Uniform integer in [0, n). */
  integer(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Standard normal (Box and Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** The integers 0..n-1 in random order (Fisher and Yates). */
  permutation(n: number): Uint32Array {
    const out = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }
}
