/**
 * Splits a network in two at the lowest cost: the minimum cut, which equals the maximum flow (Dinic's algorithm, 1970).
 * Vertices are numbers from 0; edges have integer capacities.
 */
export class MinimumCut {
  readonly #edges: number[][] = [];
  /** The vertices that edges lead to. The reverse of edge e is e ^ 1. */
  readonly #to: number[] = [];
  readonly #capacity: number[] = [];

  vertex(): number {
    this.#edges.push([]);
    return this.#edges.length - 1;
  }

  /** Adds an edge. It costs `cost` if `from` ends up on the source's side and `to` on the sink's. */
  edge(from: number, to: number, cost: number): void {
    this.#edges[from]!.push(this.#to.length);
    this.#to.push(to);
    this.#capacity.push(cost);
    this.#edges[to]!.push(this.#to.length);
    this.#to.push(from);
    this.#capacity.push(0);
  }

  /** Returns for each vertex whether it lies on the source's side. That side is as small as a minimum cut allows. */
  sourceSide(source: number, sink: number): boolean[] {
    for (;;) {
      const level = this.#levels(source);
      if (level[sink]! < 0) return level.map((distance) => distance >= 0);
      const next = new Int32Array(this.#edges.length);
      while (this.#push(source, sink, level, next));
    }
  }

  /** Returns distances from the source over edges with capacity left; -1 for vertices that can't be reached. */
  #levels(source: number): number[] {
    const level = new Array<number>(this.#edges.length).fill(-1);
    level[source] = 0;
    const queue = [source];
    for (const from of queue) {
      for (const edge of this.#edges[from]!) {
        const to = this.#to[edge]!;
        if (level[to]! >= 0 || this.#capacity[edge] === 0) continue;
        level[to] = level[from]! + 1;
        queue.push(to);
      }
    }
    return level;
  }

  /**
   * Pushes flow along one shortest path, and returns false if there is none left. It isn't recursive, because paths may
   * be long.
   */
  #push(source: number, sink: number, level: readonly number[], next: Int32Array): boolean {
    const path: number[] = [];
    let at = source;
    while (at !== sink) {
      const edge = this.#edges[at]![next[at]!];
      if (edge === undefined) {
        const last = path.pop();
        if (last === undefined) return false;
        at = this.#to[last ^ 1]!;
        next[at]!++;
      } else if (this.#capacity[edge]! > 0 && level[this.#to[edge]!] === level[at]! + 1) {
        path.push(edge);
        at = this.#to[edge]!;
      } else next[at]!++;
    }
    const flow = path.reduce(
      (least, edge) => Math.min(least, this.#capacity[edge]!),
      Number.POSITIVE_INFINITY,
    );
    for (const edge of path) {
      this.#capacity[edge]! -= flow;
      this.#capacity[edge ^ 1]! += flow;
    }
    return true;
  }
}
