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

// Join is Paths.Join.
func Join(serial uint64, link uint32) error {
	return (*(*func(uint64, uint32) error)(unsafe.Pointer(&slowJoin)))(serial, link)
}
