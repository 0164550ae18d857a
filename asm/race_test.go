//go:build race || msan || asan

package asm

const raceEnabled = true
