//go:build linux && (amd64 || arm64)

package asm

import (
	"encoding/binary"
	"os"
	"strings"
	"unsafe"
)

const (
	auxVDSO        = 33 // AT_SYSINFO_EHDR
	clockMonotonic = 1
)

// vdsoClock is the address of the vDSO's clock_gettime, or 0.
var vdsoClock uintptr

// InitClock looks for the vDSO, and reports whether it has a clock.
//
// Context: goroutine.
// Source: vdso(7), proc_pid_auxv(5).
func InitClock() bool {
	aux, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return false
	}
	for ; len(aux) >= 16; aux = aux[16:] {
		if base := uintptr(binary.LittleEndian.Uint64(aux[8:])); binary.LittleEndian.Uint64(aux) == auxVDSO && base != 0 {
			vdsoClock = vdsoSymbol(base, vdsoClockName)
		}
	}
	return vdsoClock != 0
}

// Clock returns the monotonic clock, CLOCK_MONOTONIC, in nanoseconds, and
// whether it could: not before InitClock has reported that there is one. It is
// C code of the kernel's, some twenty nanoseconds where the clock is the cycle
// counter, and a system call elsewhere. The stack must have a page left.
//
// Context: thread with a stack for it.
// Source: clock_gettime(2), vdso(7).
func Clock() (ns int64, ok bool) {
	if vdsoClock == 0 {
		return 0, false
	}
	var ts [2]int64
	if readClock(vdsoClock, clockMonotonic, &ts) != 0 {
		return 0, false
	}
	return ts[0]*1e9 + ts[1], true
}

//go:noescape
func readClock(fn uintptr, clock int32, ts *[2]int64) int32

// vdsoSymbol returns the address of a function of the ELF image at base, which
// the kernel has mapped, or 0.
func vdsoSymbol(base uintptr, name string) uintptr {
	const (
		ptLoad, ptDynamic        = 1, 2
		dtHash, dtStrtab, dtSyms = 4, 5, 6
		symSize                  = 24
	)
	u16 := func(at uintptr) uintptr { return uintptr(*(*uint16)(codeAt(at))) }
	u32 := func(at uintptr) uintptr { return uintptr(*(*uint32)(codeAt(at))) }
	u64 := func(at uintptr) uintptr { return *(*uintptr)(codeAt(at)) }
	if u32(base) != 0x464c457f { // "\x7fELF"
		return 0
	}
	ph, size, n := base+u64(base+32), u16(base+54), u16(base+56)
	load, dynamic, loaded := uintptr(0), uintptr(0), false
	for i := range n {
		switch p := ph + i*size; u32(p) {
		case ptLoad:
			if !loaded {
				load, loaded = base+u64(p+8)-u64(p+16), true
			}
		case ptDynamic:
			dynamic = base + u64(p+8)
		}
	}
	if dynamic == 0 || !loaded {
		return 0
	}
	var hash, strs, syms uintptr
	at := func(v uintptr) uintptr { // emulators give addresses, the kernel offsets
		if v >= base {
			return v
		}
		return load + v
	}
	for d := dynamic; u64(d) != 0; d += 16 {
		switch u64(d) {
		case dtHash:
			hash = at(u64(d + 8))
		case dtStrtab:
			strs = at(u64(d + 8))
		case dtSyms:
			syms = at(u64(d + 8))
		}
	}
	if strs == 0 || syms == 0 {
		return 0
	}
	count := uintptr(0)
	if hash != 0 {
		count = u32(hash + 4)
	} else if strs > syms { // linkers put the names behind the symbols
		count = (strs - syms) / symSize
	}
	for s := range min(count, 1000) {
		sym := syms + s*symSize
		if u16(sym+6) == 0 || u64(sym+8) == 0 { // undefined
			continue
		}
		text := unsafe.Slice((*byte)(codeAt(strs+u32(sym))), len(name)+1)
		if strings.HasPrefix(string(text), name) && text[len(name)] == 0 {
			return load + u64(sym+8)
		}
	}
	return 0
}
