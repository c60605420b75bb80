{
  # CMake is the build; this lets node-gyp, prebuildify and node-gyp-build find it where they look.
  'targets': [
    {
      'target_name': 'node_tensorrt',
      'type': 'none',
      'actions': [
        {
          'action_name': 'cmake_js',
          'inputs': ['CMakeLists.txt'],
          'outputs': ['<(PRODUCT_DIR)/node_tensorrt.node'],
          'action': ['node', 'scripts/build.mjs', '--addon', '<(PRODUCT_DIR)/node_tensorrt.node'],
        },
      ],
    },
  ],
}
