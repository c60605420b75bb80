/** Measured ranges of a model's values. */
export interface Ranges {
  /** Where they come from. */
  readonly report: RangesReport;
  /** The ranges of all measured float32 values, by name. */
  readonly values: ReadonlyMap<string, Range>;
}

/** The least and the greatest element of a value over all samples. They are infinite if one wasn't a number, and 0 if there were no elements. */
export interface Range {
  /** The least element. */
  readonly least: number;
  /** The greatest element. */
  readonly most: number;
}

/** The source of the ranges; without any, the reason. */
export type RangesReport =
  | { readonly source: 'calibration'; readonly samples: number }
  | { readonly source: 'random'; readonly samples: number; readonly seed: number }
  | { readonly source: 'none'; readonly reason: string };
