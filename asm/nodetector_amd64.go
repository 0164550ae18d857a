//go:build !race && !msan && !asan

package asm

// detector says that the compiler adds calls of a detector to all code.
const detector = false
