//go:build race || msan || asan

package freestanding

// instrumented says that the compiler adds calls of a detector to all code.
const instrumented = true
