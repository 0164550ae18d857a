package lwp

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// together runs fn on every element of args at the same time.
func together[T any](fn func(*T), args []T) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range args {
		wg.Go(func() {
			<-start
			fn(&args[i])
		})
	}
	close(start)
	wg.Wait()
}

// statm returns the address space and the resident memory of the process.
func statm(t *testing.T) (size, resident int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b))
	size, err1 := strconv.Atoi(f[0])
	resident, err2 := strconv.Atoi(f[1])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return size * os.Getpagesize(), resident * os.Getpagesize()
}

// An arenaFiller allocates in an arena that others fill too. It keeps its
// allocations in a list of Refs, as freestanding code does.
type arenaFiller struct {
	a      *Arena
	id     uint64
	n      int // allocations to make
	blocks Ref[arenaBlock]
	made   int
	dirty  int // fresh words that were not zero
	full   bool
	other  bool // an error that is not ErrArenaFull
}

type arenaBlock struct {
	next  Ref[arenaBlock]
	words Ref[uint64]
	n     int
	id    uint64
}

func (f *arenaFiller) run() {
	for range f.n {
		b, err := New[arenaBlock](f.a)
		if err != nil {
			f.full, f.other = true, err != ErrArenaFull
			return
		}
		w, err := NewSlice[uint64](f.a, int(f.id*7+uint64(f.made))%40)
		if err != nil {
			f.full, f.other = true, err != ErrArenaFull
			return
		}
		if b.next.Ptr() != nil || b.words.Ptr() != nil || b.n != 0 || b.id != 0 {
			f.dirty++
		}
		for i := range w {
			if w[i] != 0 {
				f.dirty++
			}
			w[i] = f.id
		}
		b.id, b.n = f.id, len(w)
		b.words.Set(unsafe.SliceData(w))
		b.next = f.blocks
		f.blocks.Set(b)
		f.made++
	}
}

// check verifies all blocks and returns their size.
func (f *arenaFiller) check(t *testing.T) (bytes int) {
	t.Helper()
	blocks := 0
	for b := f.blocks.Ptr(); b != nil; b = b.next.Ptr() {
		if b.id != f.id {
			t.Fatalf("filler %d: a block says %d", f.id, b.id)
		}
		for i, w := range unsafe.Slice(b.words.Ptr(), b.n) {
			if w != f.id {
				t.Fatalf("filler %d: word %d of a block holds %d", f.id, i, w)
			}
		}
		blocks++
		bytes += int(unsafe.Sizeof(*b)) + 8*b.n
	}
	if blocks != f.made || f.dirty != 0 || f.other {
		t.Errorf("filler %d: %d of %d blocks found, %d dirty words, other error: %v", f.id, blocks, f.made, f.dirty, f.other)
	}
	return bytes
}

func TestArenaDealsOutMemoryTwice(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 2000
	}
	var stop atomic.Bool
	defer stop.Store(true)
	go func() {
		for !stop.Load() {
			runtime.GC()
		}
	}()
	var a Arena
	defer closeArena(t, &a)
	for range 3 {
		f := make([]arenaFiller, 8)
		for i := range f {
			f[i] = arenaFiller{a: &a, id: uint64(i + 1), n: n}
		}
		together((*arenaFiller).run, f)
		total := 0
		for i := range f {
			total += f[i].check(t)
			if f[i].made != n {
				t.Errorf("filler %d made %d of %d", i, f[i].made, n)
			}
		}
		if total != a.Used() {
			t.Errorf("Used is %d, %d bytes were dealt out", a.Used(), total)
		}
		a.Reset()
	}
}

func TestArenaGoesPastItsEnd(t *testing.T) {
	a := Arena{Limit: 1 << 20}
	defer closeArena(t, &a)
	f := make([]arenaFiller, 8)
	for i := range f {
		f[i] = arenaFiller{a: &a, id: uint64(i + 1), n: 1 << 20}
	}
	together((*arenaFiller).run, f)
	for i := range f {
		f[i].check(t)
		if !f[i].full {
			t.Errorf("filler %d has not found the end", i)
		}
	}
	if left := 1<<20 - a.Used(); left < 0 || left >= 40*8 {
		t.Errorf("%d bytes left", left)
	}
}

func TestArenaMapsTwiceAtFirstUse(t *testing.T) {
	type user struct {
		a    *Arena
		gate *atomic.Int32 // users that have not come yet
		at   Ref[uint64]
	}
	const rounds = 20
	before, _ := statm(t)
	for range rounds {
		a := Arena{Limit: 1 << 30}
		var gate atomic.Int32
		users := make([]user, 4)
		for i := range users {
			users[i].a, users[i].gate = &a, &gate
		}
		// All of them see that nothing is mapped, and then wait for the lock.
		gate.Store(int32(len(users)))
		a.mu.Lock()
		go func() {
			for gate.Load() > 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Millisecond)
			a.mu.Unlock()
		}()
		together(func(u *user) {
			u.gate.Add(-1)
			p, _ := New[uint64](u.a)
			u.at.Set(p)
		}, users)
		seen := map[*uint64]bool{}
		for _, u := range users {
			p := u.at.Ptr()
			if p == nil || seen[p] || uintptr(unsafe.Pointer(p))-a.base >= 32 {
				t.Fatalf("%p after %v, base %#x", p, seen, a.base)
			}
			seen[p] = true
		}
		closeArena(t, &a)
	}
	if after, _ := statm(t); after > before+rounds<<30/8 {
		t.Errorf("address space went from %d to %d MiB", before>>20, after>>20)
	}
}

func TestArenaKeepsMemory(t *testing.T) {
	const limit, size, slack = 16 << 30, 64 << 20, 16 << 20
	a := Arena{Limit: limit}
	sizeBefore, _ := statm(t)
	if _, err := New[byte](&a); err != nil {
		t.Skipf("16 GiB of address space: %v", err)
	}
	a.Reset()
	debug.FreeOSMemory() // or the runtime does it meanwhile, little by little
	_, before := statm(t)
	for range 3 {
		s, err := NewSlice[byte](&a, size)
		if err != nil {
			t.Fatal(err)
		}
		if _, now := statm(t); now > before+slack {
			t.Errorf("allocation alone took %d MiB", (now-before)>>20)
		}
		for i := 0; i < len(s); i += 1 << 10 {
			s[i] = 1
		}
		if _, now := statm(t); now < before+size-slack {
			t.Errorf("resident memory is up by only %d MiB; the test sees nothing", (now-before)>>20)
		}
		a.Reset()
		if _, now := statm(t); now > before+slack {
			t.Errorf("after Reset resident memory is up by %d MiB", (now-before)>>20)
		}
	}
	s, err := NewSlice[byte](&a, size)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(s); i += 1 << 10 {
		s[i] = 1
	}
	closeArena(t, &a)
	sizeNow, now := statm(t)
	if now > before+slack || sizeNow > sizeBefore+limit/2 {
		t.Errorf("after Close resident memory is up by %d MiB, address space by %d MiB", (now-before)>>20, (sizeNow-sizeBefore)>>20)
	}
}

// Nothing here follows a pointer into the arena, so all outcomes are defined.
func TestArenaResetOrCloseRacesWithNew(t *testing.T) {
	type user struct {
		a          *Arena
		resets     int
		strange    int
		closed, ok int
	}
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	before, _ := statm(t)
	for range rounds {
		var a Arena
		users := make([]user, 4)
		for i := range users {
			users[i].a = &a
		}
		users[0].resets = 300
		together(func(u *user) {
			if u.resets > 0 {
				for range u.resets {
					u.a.Reset()
				}
				if u.a.Close() != nil {
					u.strange++
				}
				return
			}
			for u.closed < 10 {
				p, err := New[uint64](u.a)
				switch {
				case err == ErrArenaClosed:
					u.closed++
				case err != nil || p == nil:
					u.strange++
				default:
					u.ok++
				}
			}
		}, users)
		for i, u := range users {
			if u.strange != 0 {
				t.Errorf("user %d: %d strange results, %d good ones", i, u.strange, u.ok)
			}
		}
	}
	if after, _ := statm(t); after > before+16<<30 {
		t.Errorf("address space went from %d to %d MiB", before>>20, after>>20)
	}
}

func TestArenaWithoutAddressSpace(t *testing.T) {
	const env = "LWP_TEST_ARENA_AS"
	if os.Getenv(env) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestArenaWithoutAddressSpace$", "-test.v")
		cmd.Env = append(os.Environ(), env+"=1")
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.ENOEXEC) {
			t.Skip("an emulated program cannot start itself without binfmt_misc")
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if strings.Contains(string(out), "--- SKIP") {
			t.Skipf("%s", out)
		}
		return
	}
	size, _ := statm(t)
	limit := unix.Rlimit{Cur: uint64(size + 256<<20), Max: unix.RLIM_INFINITY}
	var got unix.Rlimit
	err1 := unix.Setrlimit(unix.RLIMIT_AS, &limit)
	err2 := unix.Getrlimit(unix.RLIMIT_AS, &got)
	if err1 != nil || err2 != nil || got.Cur != limit.Cur {
		t.Skipf("RLIMIT_AS cannot be set: %v, %v, %d", err1, err2, got.Cur)
	}
	var a Arena
	for range 2 {
		_, err := New[int](&a)
		if e, ok := err.(*Error); !ok || e.Op != "mmap" || e.Errno != syscall.ENOMEM {
			t.Errorf("%v", err)
		}
	}
	a.Limit = 1 << 20
	if _, err := New[int](&a); err != nil {
		t.Errorf("with a smaller Limit: %v", err)
	}
	closeArena(t, &a)
}
