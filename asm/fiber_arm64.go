package asm

import "unsafe"

// There are no short ways here; see the amd64 file.

func setEnd() {}

// Yield is Paths.Yield.
func Yield() { (*(*func())(unsafe.Pointer(&slowYield)))() }

// Spawn returns Paths.Spawn.
func Spawn[H any]() func(fn, arg uintptr) (H, error) {
	return func(fn, arg uintptr) (H, error) {
		return (*(*func(uintptr, uintptr) (H, error))(unsafe.Pointer(&slowSpawn)))(fn, arg)
	}
}

// Join returns Paths.Join.
func Join[H any]() func(H) error {
	return func(h H) error { return (*(*func(H) error)(unsafe.Pointer(&slowJoin)))(h) }
}
