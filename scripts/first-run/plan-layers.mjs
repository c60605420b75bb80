// Reads the report of TensorRT's inspector about a plan (IEngineInspector::getEngineInformation).

/** The plan's layers, with the tensors that each reads and writes, if the plan was built to record them. */
export function layersOf(information) {
  return JSON.parse(information).Layers.map((layer) => {
    if (typeof layer === 'string') return { name: layer, type: '', tensors: [] };
    const { Name, LayerType = '', Inputs = [], Outputs = [] } = layer;
    return { name: Name, type: LayerType, tensors: [...Inputs, ...Outputs].map((tensor) => tensor.Name) };
  });
}

/**
 * Finds layers that only move a cache to another place or into another layout. Layers that do more, such as attention,
 * and the writes of new tokens don't count.
 *
 * @returns sentences without their full stop
 */
export function cacheCopies(layers, caches) {
  const names = new Set(caches.flatMap(({ input, output }) => [input, output]));
  return layers
    .filter(
      ({ name, type }) =>
        /^(__myl_)?(Move|Tran|Copy)+(_|$)/.test(name) || /^Reformat/i.test(type) || /^Reformat/.test(name),
    )
    .flatMap((layer) => {
      // "present.0.key [profile 1]", "present.0.key.1"
      const moved = layer.tensors.map((tensor) => tensor.replace(/( \[profile \d+\])?(\.\d+)?$/, ''));
      const cache = [...layer.tensors, ...moved].find((tensor) => names.has(tensor));
      return cache === undefined ? [] : [`${layer.name} of ${cache}`];
    });
}
