/** How far the values of a model go. */
export interface Ranges {
  readonly report: RangesReport;
  /** Of every float32 value that was measured, by name. */
  readonly values: ReadonlyMap<string, Range>;
}

/** The least and the greatest element over all samples; infinite where one was not a number. Of no elements, 0 to 0. */
export interface Range {
  readonly least: number;
  readonly most: number;
}

/** Where ranges come from; without any, why. */
export type RangesReport =
  | { readonly source: 'calibration'; readonly samples: number }
  | { readonly source: 'random'; readonly samples: number; readonly seed: number }
  | { readonly source: 'none'; readonly reason: string };
