package freestanding

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

// bounds returns where the function that holds pc begins and ends, or zeros.
// The runtime tells where it begins; it ends where another one does, which is
// searched for, since padding belongs to the function before it.
func bounds(pc uintptr) (entry, end uintptr) {
	f := runtime.FuncForPC(pc)
	if f == nil {
		return 0, 0
	}
	entry = f.Entry() // of the outermost function, where pc is in an inlined one
	in := func(pc uintptr) bool {
		f := runtime.FuncForPC(pc)
		return f != nil && f.Entry() == entry
	}
	const align = 16 // of functions, on both ports
	step := uintptr(align)
	lo := pc &^ (align - 1)
	for in(lo + step) {
		lo += step
		step *= 2
	}
	for step /= 2; step >= align; step /= 2 {
		if in(lo + step) {
			lo += step
		}
	}
	return entry, lo + align
}

// frames returns what source positions the instruction before ret stands for,
// the outermost function first: more than one where calls were inlined.
func frames(ret uintptr) []Frame {
	var fs []Frame
	// What was inlined is expanded where another return address follows.
	it := runtime.CallersFrames([]uintptr{ret, 0})
	for {
		f, more := it.Next()
		if f.Function != "" {
			fs = append(fs, Frame{f.Function, f.File, f.Line})
		}
		if !more {
			break
		}
	}
	for i, j := 0, len(fs)-1; i < j; i, j = i+1, j-1 {
		fs[i], fs[j] = fs[j], fs[i]
	}
	return fs
}

// code returns the bytes of the machine code from lo to hi.
func code(lo, hi uintptr) []byte {
	return unsafe.Slice((*byte)(at(lo)), hi-lo)
}

// at converts an address outside the heap.
func at(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

type region struct {
	lo, hi uintptr
	write  bool
	zeroed bool // variables that begin as zero
}

// regions are the mappings of the executable, in rising order, with its variables.
var regions = sync.OnceValue(func() []region {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil
	}
	defer f.Close()
	var rs []region
	for s := bufio.NewScanner(f); s.Scan(); {
		// 00400000-00401000 r-xp 00000000 08:01 1234    /path
		fs := strings.Fields(s.Text())
		if len(fs) < 5 || fs[1][0] != 'r' {
			continue
		}
		a, b, _ := strings.Cut(fs[0], "-")
		lo, err1 := strconv.ParseUint(a, 16, 64)
		hi, err2 := strconv.ParseUint(b, 16, 64)
		named := len(fs) > 5 && fs[5] == exe
		// Behind the last of those, and without a file.
		zeroed := len(fs) == 5 && len(rs) > 0 && rs[len(rs)-1].hi == uintptr(lo)
		if err1 == nil && err2 == nil && (named || zeroed) {
			rs = append(rs, region{uintptr(lo), uintptr(hi), fs[1][1] == 'w', zeroed})
		}
	}
	return rs
})

// word reads a word of the executable's static data. constant says that
// nothing writes there.
func word(addr uintptr) (w uintptr, constant, ok bool) {
	if r := regionOf(addr, 8); r != nil && !r.zeroed && addr%8 == 0 {
		return *(*uintptr)(at(addr)), !r.write, true
	}
	return 0, false, false
}

// variable reads a word of a package variable.
func variable(addr uintptr) (w uintptr, ok bool) {
	if r := regionOf(addr, 8); r != nil && r.write && addr%8 == 0 {
		return *(*uintptr)(at(addr)), true
	}
	return 0, false
}

// regionOf returns the mapping of the executable with the n bytes at addr, or nil.
func regionOf(addr, n uintptr) *region {
	rs := regions()
	for i := range rs {
		if rs[i].lo <= addr && addr+n <= rs[i].hi {
			return &rs[i]
		}
	}
	return nil
}

// isStatic tells addresses in the executable: of code, or of its data.
func isStatic(addr uintptr) bool {
	r := regionOf(addr, 1)
	return r != nil && !r.zeroed
}

// isAssembly tells func values of package asm's assembly. They lie in variables,
// since there is no other way to make them, but these are set once, at init.
func isAssembly(addr uintptr) bool {
	pc, constant, ok := word(addr)
	if !ok || !constant {
		return false
	}
	f := runtime.FuncForPC(pc)
	if f == nil || f.Entry() != pc {
		return false
	}
	name, ok := strings.CutPrefix(f.Name(), "lwprt/asm.")
	return ok && name[0] >= 'a' && name[0] <= 'z'
}

// funcValue returns the entry of the function that addr, a constant in the
// code, stands for: addr is its entry, or that of a static closure.
func funcValue(addr uintptr) uintptr {
	if f := runtime.FuncForPC(addr); f != nil {
		if f.Entry() == addr {
			return addr
		}
		return 0
	}
	if w, _, ok := word(addr); ok {
		if f := runtime.FuncForPC(w); f != nil && f.Entry() == w {
			return w
		}
	}
	return 0
}
