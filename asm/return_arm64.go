package asm

import "unsafe"

// SwitchJump, SwitchReturn and Return: see the amd64 file. Nothing is measured
// here, and everything returns.

//go:nosplit // as Switch
func SwitchJump(from, to *Context, release *uint32) { switchFn(from, to, release) }

//go:nosplit // as Switch
func SwitchReturn(from, to *Context, release *uint32) bool {
	switchFn(from, to, release)
	return *(*bool)(codeAt(uintptr(unsafe.Pointer(from)) - ResultAt))
}

//go:nosplit // what is returned must not be lost to an overflow
func Return(i int, err error) (int, error) { return i, err }
