package freestanding_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"math/cmplx"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/unix"

	fs "lwprt/lwp/freestanding"
)

var (
	aWord   atomic.Uint64
	aRW     sync.RWMutex
	aGroup  sync.WaitGroup
	anOnce  sync.Once
	anArray [64]int
	aDict   map[int]point
	sink    int
	sinkF   float64
	sinkB   bool
)

func (p point) sum() int { return p.x + p.y }

type adder interface{ sum() int }

//go:noinline
func twice(a adder) int { return a.sum() + a.sum() }

//go:noinline
func sumOf[T adder](list []T) (n int) {
	for _, v := range list {
		n += v.sum()
	}
	return n
}

//go:noinline
func gcd(a, b uint) uint {
	if b == 0 {
		return a
	}
	return gcd(b, a%b)
}

//go:noinline
func total8(a [8]int) (n int) {
	for _, v := range a {
		n += v
	}
	return n
}

type byY []point

func (b byY) Len() int           { return len(b) }
func (b byY) Less(i, j int) bool { return b[i].y < b[j].y }
func (b byY) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }

// growth marks functions that are checked with WithinCapacity; plain ones are
// clean without. inlining and openDefer mark what is clean only because of an
// optimization.
type needs int

const (
	plain needs = iota
	growth
	inlining
	openDefer
)

var clean = []struct {
	name  string
	fn    any
	needs needs
}{
	{"arithmetic", func(a, b int) { sink = a*b - a<<3 ^ b>>1&^a }, plain},
	{"variable shift", func(a int, n uint8) { sink = a<<n | a>>n }, plain},
	{"floats", func(a, b float64) { sinkF = a/b + math.Sqrt(a)*math.Floor(b) }, plain},
	{"math", func(a float64) { sinkF = math.Sin(a) + math.Exp(a) + math.Log(a) + math.Pow(a, 3) + math.Mod(a, 2) }, plain},
	{"complex", func(a, b complex128) { sinkF = real(a*b) + cmplx.Abs(a/b) }, plain},
	{"bits", func(a uint64) {
		sink = bits.LeadingZeros64(a) + bits.OnesCount64(a) + bits.Len64(a) + int(bits.Reverse64(a))
	}, plain},
	{"static calls", func(a, b uint) { sink = int(gcd(a, b)) + total8([8]int{1, 2}) }, plain},
	{"closure", func(n int) int { f := func(a int) int { return a + n }; return f(1) + f(2) }, plain},
	{"func argument", func(n int) int { return apply(func(a int) int { return a * 3 }, n) }, plain},
	{"method value", point{1, 2}.sum, plain},
	{"method value inside", func(p point) int { f := p.sum; return f() + f() }, plain},
	{"method expression", point.sum, plain},
	{"interface method", func(p *point) int { return twice(p) + twice(point{1, 2}) }, plain},
	{"generic", func(l []point) int { return sumOf(l) }, plain},
	{"recursion", func(a, b uint) uint { return gcd(a, b) }, plain},
	{"atomics", func() { aWord.Add(2); aWord.CompareAndSwap(1, 2); sink = int(aWord.Load()); aWord.Or(4) }, plain},
	{"local arrays", func(i int) { var a [100]int; a[i] = 4; b := a; sink = b[i] }, plain},
	{"large frame", func(i int) { var a [100000]byte; a[i] = 4; sink = int(a[i/2]) }, plain},
	{"copy and clear", func(s []int) { copy(s, anArray[:]); clear(anArray[:]) }, plain},
	{"struct compare", func(a, b point, c, d [9]int) { sinkB = a == b || c == d }, plain},
	{"string compare", func(a, b string) { sinkB = a == b || a < b || a[1:] > b }, plain},
	{"string index and range", func(s string) {
		for i, r := range s {
			sink += i + int(r) + int(s[i])
		}
	}, plain},
	{"string switch", func(s string) int {
		switch s {
		case "alpha":
			return 1
		case "beta", "gamma", "delta", "epsilon", "zeta":
			return 2
		case "eta", "theta", "iota", "kappa":
			return 3
		}
		return 0
	}, plain},
	{"int switch", func(n int) int {
		switch n {
		case 0:
			return 5
		case 1:
			return 9
		case 2:
			return sink
		case 3:
			return len(strs)
		case 4:
			return -1
		case 5:
			return n * n
		case 6:
			return 77
		case 7:
			return 14
		case 8:
			return 11
		case 9:
			panic("not nine")
		}
		return 0
	}, plain},
	{"short concatenation", func(a, b string) { s := a + b; sink = len(s) + int(s[0]) }, growth},
	{"short bytes", func(s string) { b := []byte(s); b[0] = 1; sink = int(b[len(b)-1]) }, growth},
	{"strings", func(a, b string) {
		sink = strings.Index(a, b) + strings.Count(a, "x") + strings.LastIndexByte(a, 'y')
		sinkB = strings.HasPrefix(a, b) || strings.EqualFold(a, b) || strings.TrimSpace(a) == ""
	}, plain},
	{"bytes", func(a, b []byte) { sink = bytes.Index(a, b) + bytes.Compare(a, b); sinkB = bytes.Equal(a, b) }, plain},
	{"AppendInt", func(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }, growth},
	{"binary", func(b []byte) { sink = int(binary.LittleEndian.Uint64(b)); binary.BigEndian.PutUint32(b, 7) }, plain},
	{"utf8", func(b []byte) { r, n := utf8.DecodeRune(b); sink = int(r) + n + utf8.EncodeRune(b, 'ä') }, plain},
	{"sort.Ints", func(s []int) { sort.Ints(s) }, plain},
	{"sort.Sort", func(s *byY) { sort.Sort(s) }, plain},
	{"slices", func(s []int) {
		slices.Sort(s)
		i, _ := slices.BinarySearch(s, 3)
		sink = i + slices.Index(s, 4)
		slices.Reverse(s)
	}, plain},
	{"SortFunc", func(s []point) { slices.SortFunc(s, func(a, b point) int { return a.x - b.x }) }, plain},
	{"append within capacity", func(s []int) []int { return append(s[:0], 1, 2) }, growth},
	{"defer", func() { aMutex.Lock(); defer aMutex.Unlock(); defer func() { sink++ }() }, openDefer},
	{"range over int", func(n int) {
		for i := range n {
			sink += i
		}
	}, plain},
	{"range over a static func", func() {
		for i := range sequence {
			sink += i
		}
	}, inlining},
	{"slices.Values", func(s []int) {
		for v := range slices.Values(s) {
			sink += v
		}
	}, inlining},
	{"map read", func(s string) { sink = aMap[s] + len(aMap) + aDict[4].x; _, sinkB = aMap["k"] }, plain},
	{"map overwrite", func(s string) { aMap[s] = 4; aDict[7] = point{}; delete(aMap, s) }, growth},
	{"Mutex", func() { aMutex.Lock(); sink++; aMutex.Unlock(); sinkB = aMutex.TryLock() }, plain},
	{"RWMutex", func() {
		aRW.RLock()
		sink++
		aRW.RUnlock()
		aRW.Lock()
		sink--
		aRW.Unlock()
	}, plain},
	{"WaitGroup", func() { aGroup.Add(1); aGroup.Done(); aGroup.Wait() }, plain},
	{"Once", func() { anOnce.Do(func() { sink++ }) }, openDefer},
	{"type switch", func(v any) int {
		switch v := v.(type) {
		case int:
			return v
		case string:
			return len(v)
		case *point:
			return v.x
		}
		n, _ := v.(uint8)
		return int(n)
	}, plain},
	{"conversion to interface", func(p *point) { anAny = p; anAny = 4; anAny = "constant"; anAny = point{} }, plain},
	{"raw system call", func() {
		_, _, e := unix.RawSyscall6(unix.SYS_FUTEX, 0, 0, 0, 0, 0, 0)
		sink = int(e) + unix.Getpid()
	}, plain},
	{"unsafe", func(p *byte, n int) { sink = len(unsafe.Slice(p, n)) + len(unsafe.String(p, n)) }, plain},
	{"goto", func(n int) {
	again:
		if n--; n > 0 {
			goto again
		}
	}, plain},
	{"endless loop", func() {
		for {
			if aWord.Add(1) == 0 {
				panic("overflow")
			}
		}
	}, plain},
}

func TestCleanFunctionPasses(t *testing.T) {
	for _, c := range clean {
		t.Run(c.name, func(t *testing.T) {
			if c.needs == inlining && !inlines() {
				t.Skip("clean only where functions are inlined")
			}
			if c.needs == openDefer && !opensDefers() {
				t.Skip("clean only where defer is open-coded")
			}
			var options []fs.Option
			if c.needs == growth {
				if r, err := fs.Check(c.fn); err != nil || r.OK() {
					t.Errorf("without WithinCapacity: no fault found: %v", err)
				}
				options = append(options, fs.WithinCapacity)
			}
			r, err := fs.Check(c.fn, options...)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				t.Error(r)
			}
			for _, u := range r.Unresolved {
				if c.name != "Once" { // which defers twice, once in a branch
					t.Errorf("unresolved: %v", u)
				}
			}
			if r.Stack.Bytes <= 0 && runtime.GOARCH == "amd64" || len(r.Stack.Path) == 0 && len(r.Stack.Cycle) == 0 {
				t.Errorf("no stack: %v", r)
			}
		})
	}
}

// inlines reports whether a small function is part of its caller.
func inlines() bool {
	r, err := fs.Check(func(n int) { inlined1(n) })
	return err == nil && r.Funcs == 1
}

// opensDefers reports whether a lone defer statement is without a call of the runtime.
func opensDefers() bool {
	r, err := fs.Check(func() { defer func() { sink++ }() })
	return err == nil && r.OK()
}
