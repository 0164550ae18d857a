package lwp

import (
	"errors"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func closeArena(t *testing.T, a *Arena) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// testNew allocates Ts between single bytes and fills all of it.
func testNew[T any](t *testing.T, a *Arena) {
	var zero T
	size, align := unsafe.Sizeof(zero), unsafe.Alignof(zero)
	var blocks [][]byte
	add := func(b []byte) {
		for _, x := range b {
			if x != 0 {
				t.Fatalf("%T: fresh memory is not zero", zero)
			}
		}
		for i := range b {
			b[i] = byte(len(blocks) + 1)
		}
		blocks = append(blocks, b)
	}
	for n := range 9 {
		b, err := NewSlice[byte](a, n)
		if err != nil || len(b) != n || cap(b) != n {
			t.Fatalf("NewSlice[byte](%d): %d bytes of %d, %v", n, len(b), cap(b), err)
		}
		add(b)
		p, err := New[T](a)
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSlice[T](a, n)
		if err != nil || len(s) != n || cap(s) != n {
			t.Fatalf("NewSlice[%T](%d): %d of %d, %v", zero, n, len(s), cap(s), err)
		}
		for _, p := range []*T{p, unsafe.SliceData(s)} {
			if uintptr(unsafe.Pointer(p))%align != 0 {
				t.Errorf("%T at %p: alignment is %d", zero, p, align)
			}
		}
		add(unsafe.Slice((*byte)(unsafe.Pointer(p)), size))
		add(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), size*uintptr(n)))
	}
	for i, b := range blocks {
		for _, x := range b {
			if x != byte(i+1) {
				t.Fatalf("%T: allocation %d was overwritten", zero, i)
			}
		}
	}
}

func TestArenaMisalignsOrOverlaps(t *testing.T) {
	var a Arena
	defer closeArena(t, &a)
	testNew[bool](t, &a)
	testNew[int16](t, &a)
	testNew[[3]byte](t, &a)
	testNew[float32](t, &a)
	testNew[uint64](t, &a)
	testNew[complex128](t, &a)
	testNew[string](t, &a)
	testNew[any](t, &a)
	testNew[[]int](t, &a)
	testNew[*int](t, &a)
	testNew[atomic.Int64](t, &a)
	testNew[struct {
		a byte
		b int64
		c byte
	}](t, &a)
	testNew[[5]int16](t, &a)
	testNew[Arena](t, &a)
	testNew[[100_000]byte](t, &a)
}

func TestArenaClonesDifferOrShare(t *testing.T) {
	var a Arena
	defer closeArena(t, &a)
	for _, want := range []string{"", "x", "eight by", "\x00\xff", strings.Repeat("long ", 5000)} {
		b := []byte(want)
		c, err := CloneBytes(&a, b)
		s, err2 := CloneString(&a, unsafe.String(unsafe.SliceData(b), len(b)))
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		clear(b)
		if string(c) != want || s != want {
			t.Errorf("clones of %.10q are %.10q and %.10q", want, c, s)
		}
	}
}

func TestArenaFullIsNotExact(t *testing.T) {
	page := os.Getpagesize()
	a := Arena{Limit: page - 100} // rounded up
	defer closeArena(t, &a)
	for i := range page / 64 {
		if i == page/128 {
			// A request without room takes none.
			if _, err := NewSlice[byte](&a, page); err != ErrArenaFull {
				t.Fatalf("too much: %v", err)
			}
		}
		if _, err := New[[57]byte](&a); err != nil {
			t.Fatalf("allocation %d, with %d of %d bytes used: %v", i, a.Used(), page, err)
		}
	}
	if a.Used() != page {
		t.Errorf("%d of %d bytes used", a.Used(), page)
	}
	for range 3 {
		if p, err := New[byte](&a); err != ErrArenaFull || p != nil {
			t.Errorf("New in a full arena: %p, %v", p, err)
		}
		if s, err := NewSlice[int](&a, 1); err != ErrArenaFull || s != nil {
			t.Errorf("NewSlice in a full arena: %v, %v", s, err)
		}
	}
	// Nothing fits always, and not past the end.
	p, err := New[struct{}](&a)
	if off := uintptr(unsafe.Pointer(p)) - a.base; err != nil || off >= uintptr(page) {
		t.Errorf("New[struct{}]: offset %d, %v", off, err)
	}
	s, err := NewSlice[int](&a, 0)
	if off := uintptr(unsafe.Pointer(unsafe.SliceData(s))) - a.base; err != nil || len(s) != 0 || off >= uintptr(page) {
		t.Errorf("an empty slice: %v at offset %d, %v", s, off, err)
	}
	if s, err := NewSlice[struct{}](&a, math.MaxInt); err != nil || len(s) != math.MaxInt {
		t.Errorf("slice of nothings: %d, %v", len(s), err)
	}
	if s, err := CloneString(&a, ""); s != "" || err != nil {
		t.Errorf("clone of nothing: %q, %v", s, err)
	}
}

func TestArenaTakesAbsurdSizes(t *testing.T) {
	var a Arena
	defer closeArena(t, &a)
	for _, n := range []int{-1, math.MinInt, math.MaxInt, math.MaxInt - 7, 1 << 61, 1 << 62, 1<<61 + 1, 1 << 28} {
		if s, err := NewSlice[uint64](&a, n); err != ErrArenaSize || s != nil {
			t.Errorf("NewSlice[uint64](%d): %d elements, %v", n, len(s), err)
		}
	}
	for _, n := range []int{-1, math.MinInt, math.MaxInt, math.MaxInt - 6, DefaultArenaLimit + 1} {
		if s, err := NewSlice[byte](&a, n); err != ErrArenaSize || s != nil {
			t.Errorf("NewSlice[byte](%d): %d elements, %v", n, len(s), err)
		}
	}
	if _, err := NewSlice[struct{}](&a, -1); err != ErrArenaSize {
		t.Errorf("-1 nothings: %v", err)
	}
	if p, err := New[[DefaultArenaLimit + 1]byte](&a); err != ErrArenaSize || p != nil {
		t.Errorf("a large type: %p, %v", p, err)
	}
	if a.Used() != 0 {
		t.Errorf("%d bytes used", a.Used())
	}
	if s, err := NewSlice[byte](&a, DefaultArenaLimit); err != nil || len(s) != DefaultArenaLimit {
		t.Errorf("all of it: %d, %v", len(s), err)
	} else {
		s[0], s[DefaultArenaLimit-1] = 1, 1
	}
	if _, err := New[byte](&Arena{Limit: -1}); err != ErrArenaSize {
		t.Errorf("negative Limit: %v", err)
	}
	for _, limit := range []int{1 << 60, math.MaxInt} {
		b := Arena{Limit: limit}
		_, err := New[byte](&b)
		if e, ok := err.(*Error); !ok || e.Op != "mmap" || !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("Limit %d: %v", limit, err)
		}
		b.Limit = 0 // nothing was mapped, so this is another first allocation
		if _, err := New[byte](&b); err != nil {
			t.Errorf("after ENOMEM: %v", err)
		}
		closeArena(t, &b)
	}
}

func TestArenaResetLeavesBytes(t *testing.T) {
	for _, locked := range []bool{false, true} {
		a := Arena{Limit: 1 << 20}
		first, err := NewSlice[byte](&a, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		if locked {
			if err := unix.Mlock(first); err != nil {
				t.Logf("mlock: %v", err)
				break
			}
		}
		for _, size := range []int{10_000, 100, 1 << 20} {
			a.Reset()
			if a.Used() != 0 {
				t.Errorf("Used after Reset: %d", a.Used())
			}
			s, err := NewSlice[byte](&a, size)
			if err != nil || unsafe.SliceData(s) != unsafe.SliceData(first) {
				t.Fatalf("after Reset: %p, was %p, %v", s, first, err)
			}
			for i := range s {
				if s[i] != 0 {
					t.Fatalf("locked %v: byte %d of %d after Reset is %d", locked, i, size, s[i])
				}
				s[i] = 0xa5
			}
		}
		closeArena(t, &a)
	}
}

func TestArenaUseAfterClose(t *testing.T) {
	for _, used := range []bool{false, true} {
		var a Arena
		if used {
			if _, err := New[int](&a); err != nil {
				t.Fatal(err)
			}
		}
		closeArena(t, &a)
		for range 2 {
			_, err1 := New[int](&a)
			_, err2 := NewSlice[int](&a, 3)
			_, err3 := CloneString(&a, "s")
			_, err4 := CloneBytes(&a, []byte{1})
			_, err5 := New[struct{}](&a)
			a.Reset()
			for i, err := range []error{err1, err2, err3, err4, err5, a.Close()} {
				if err != ErrArenaClosed {
					t.Errorf("used %v: call %d after Close: %v", used, i, err)
				}
			}
			if a.Used() != 0 {
				t.Errorf("Used after Close: %d", a.Used())
			}
		}
	}
}

func TestArenaAllocatesOnTheGoHeap(t *testing.T) {
	var a Arena
	defer closeArena(t, &a)
	text := strings.Repeat("x", 100)
	if n := testing.AllocsPerRun(100, func() {
		_, err1 := New[[100]byte](&a)
		_, err2 := NewSlice[string](&a, 20)
		_, err3 := CloneString(&a, text)
		_, err4 := NewSlice[int](&a, -1)
		_, err5 := New[int](&Arena{Limit: 1 << 60})
		if err1 != nil || err2 != nil || err3 != nil || err4 != ErrArenaSize || err5 == nil {
			t.Fatal(err1, err2, err3, err4, err5)
		}
		a.Reset()
	}); n != 0 {
		t.Errorf("%v Go allocations", n)
	}
}

func TestRefLosesItsTarget(t *testing.T) {
	var a Arena
	defer closeArena(t, &a)
	type node struct {
		next Ref[node]
		v    int
	}
	if size := unsafe.Sizeof(node{}); size != 16 {
		t.Errorf("a Ref makes the node %d bytes", size)
	}
	var head Ref[node]
	if head.Ptr() != nil {
		t.Error("the zero Ref is not nil")
	}
	for i := range 10 {
		n, err := New[node](&a)
		if err != nil {
			t.Fatal(err)
		}
		n.v, n.next = i, head
		head.Set(n)
	}
	want := 9
	for n := head.Ptr(); n != nil; n = n.next.Ptr() {
		if n.v != want {
			t.Errorf("%d, want %d", n.v, want)
		}
		want--
	}
	if want != -1 {
		t.Errorf("the list ends before %d", want)
	}
	if head.Set(nil); head.Ptr() != nil {
		t.Error("Set(nil) is not nil")
	}
}
