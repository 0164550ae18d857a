package lwptest

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// CPUTime returns the CPU time that a thread of this process has taken, in
// steps of the kernel's clock tick of 10 ms.
func CPUTime(t testing.TB, tid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	if err != nil {
		t.Fatal(err)
	}
	// The name in parentheses may hold anything; utime and stime are fields 14 and 15.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var user, system int64
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// Addr returns the address of something for a raw system call on a thread. It
// is freestanding.
func Addr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// Resident returns the resident memory of this process in bytes, the free part
// of the Go heap given back first.
func Resident() int {
	debug.FreeOSMemory()
	f := strings.Fields(read("/proc/self/statm"))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(f[1])
	return pages * os.Getpagesize()
}
