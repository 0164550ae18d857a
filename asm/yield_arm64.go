package asm

import "unsafe"

// Yield is what SetYield was given; see the amd64 file.
func Yield() { (*(*func())(unsafe.Pointer(&slowYield)))() }
