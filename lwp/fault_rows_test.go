package lwp_test

import (
	"errors"
	"fmt"
	"iter"
	"log"
	"math/rand"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// A row is something that freestanding code cannot do.
type row struct {
	name string
	want lwp.Reason
	line int // where, or 0
	do   func(*given)
}

// given is what the functions of rows work on.
type given struct {
	n, zero int
	s       string
	any     any
	ints    []int
	none    *given
	fn      func()
	ch      chan int
	ch2     chan int
	m       map[int]int
	big     map[string]int
	mu      sync.Mutex
	rw      sync.RWMutex
	wg      sync.WaitGroup
	once    sync.Once
	pool    sync.Pool
	file    *os.File
	log     *log.Logger
	addr    uintptr
	seq     iter.Seq[int]
}

// here returns the line of its call plus n.
func here(n int) int {
	_, _, line, _ := runtime.Caller(1)
	return line + n
}

// at converts an address that may be anything.
func at(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// Where rows leave what is to escape.
var (
	escInt   *int
	escFunc  func() int
	escInts  []int
	escBytes []byte
	escStr   string
	escAny   any
	escMap   map[int]int
	escTime  time.Time
	escErr   error
)

//go:noinline
func (g *given) seqBody(k int) bool { g.n += k; return true }

// holding calls f while a goroutine is between lock and unlock.
func holding(lock, unlock func(), f func()) {
	locked, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		lock()
		close(locked)
		<-release
		unlock()
		close(done)
	}()
	<-locked
	f()
	close(release)
	<-done
}

// around says what has to be held while a row runs.
func (r *row) around(g *given, f func()) {
	switch r.name {
	case "Mutex.Lock, held":
		holding(g.mu.Lock, g.mu.Unlock, f)
	case "RWMutex.RLock, held", "RWMutex.Lock, held":
		holding(g.rw.Lock, g.rw.Unlock, f)
	case "Once.Do, running":
		stop := make(chan struct{})
		holding(func() {
			started := make(chan struct{})
			go g.once.Do(func() { close(started); <-stop })
			<-started
		}, func() { close(stop) }, f)
	case "WaitGroup.Wait":
		g.wg.Add(1)
		f()
		g.wg.Done()
	default:
		f()
	}
}

func rows() []row {
	return slices.Concat(allocationRows, hostedRows, misuseRows)
}

var allocationRows = []row{
	{"new", lwp.HeapAllocation, here(1), func(g *given) {
		escInt = new(int)
	}},
	{"closure that escapes", lwp.HeapAllocation, here(2), func(g *given) {
		n := g.n
		escFunc = func() int { return n }
	}},
	{"make of a variable size", lwp.HeapAllocation, here(1), func(g *given) {
		escInts = make([]int, g.n)
	}},
	{"append beyond capacity", lwp.HeapAllocation, here(1), func(g *given) {
		escInts = append(g.ints, 1)
	}},
	{"string concatenation", lwp.HeapAllocation, here(1), func(g *given) {
		escStr = g.s + g.s
	}},
	{"string to bytes", lwp.HeapAllocation, here(1), func(g *given) {
		escBytes = []byte(g.s)
	}},
	{"conversion to interface", lwp.HeapAllocation, here(1), func(g *given) {
		escAny = g.n
	}},
	{"errors.New", lwp.HeapAllocation, here(1), func(g *given) {
		escErr = errors.New(g.s)
	}},
	{"strings.Repeat", lwp.HeapAllocation, here(1), func(g *given) {
		escStr = strings.Repeat(g.s, g.n)
	}},
	{"sort.Slice", lwp.HeapAllocation, here(1), func(g *given) {
		sort.Slice(g.ints, func(i, j int) bool { return g.ints[i] < g.ints[j] })
	}},
	{"map that grows", lwp.MapOperation, here(2), func(g *given) {
		for i := range 1000 {
			g.m[i] = i
		}
	}},
	{"range over a map", lwp.MapOperation, here(1), func(g *given) {
		for k := range g.big {
			g.n += len(k)
		}
	}},
	{"clear of a map", lwp.MapOperation, here(1), func(g *given) {
		clear(g.big)
	}},
	{"make of a map", lwp.MapOperation, here(1), func(g *given) {
		escMap = make(map[int]int, g.n)
	}},
	{"range over a func", lwp.HeapAllocation, here(1), func(g *given) {
		for k := range g.seq {
			if !g.seqBody(k) {
				break
			}
		}
	}},
	{"iter.Pull", lwp.HeapAllocation, here(1), func(g *given) {
		next, stop := iter.Pull(g.seq)
		next()
		stop()
	}},
}

var hostedRows = []row{
	{"Mutex.Lock, held", lwp.LockContention, here(1), func(g *given) {
		g.mu.Lock()
	}},
	{"RWMutex.RLock, held", lwp.LockContention, here(1), func(g *given) {
		g.rw.RLock()
	}},
	{"RWMutex.Lock, held", lwp.LockContention, here(1), func(g *given) {
		g.rw.Lock()
	}},
	{"WaitGroup.Wait", lwp.LockContention, here(1), func(g *given) {
		g.wg.Wait()
	}},
	{"Once.Do, running", lwp.LockContention, here(1), func(g *given) {
		g.once.Do(g.fn)
	}},
	{"send", lwp.ChannelOperation, here(1), func(g *given) {
		g.ch <- 1
	}},
	{"receive", lwp.ChannelOperation, here(1), func(g *given) {
		g.n = <-g.ch
	}},
	{"range over a channel", lwp.ChannelOperation, here(1), func(g *given) {
		for n := range g.ch {
			g.n = n
		}
	}},
	{"close", lwp.ChannelOperation, here(1), func(g *given) {
		close(g.ch)
	}},
	{"select", lwp.ChannelOperation, here(1), func(g *given) {
		select {
		case g.n = <-g.ch:
		case g.ch2 <- 1:
		}
	}},
	{"select {}", lwp.ChannelOperation, here(1), func(g *given) {
		select {}
	}},
	{"make of a channel", lwp.ChannelOperation, here(1), func(g *given) {
		g.ch = make(chan int, g.n)
	}},
	{"go", lwp.GoStatement, here(1), func(g *given) {
		go g.fn()
	}},
	{"Gosched", lwp.GoStatement, here(1), func(g *given) {
		runtime.Gosched()
	}},
	{"time.Now", lwp.ClockOrTimer, here(1), func(g *given) {
		escTime = time.Now()
	}},
	{"time.Since", lwp.ClockOrTimer, here(1), func(g *given) {
		g.n = int(time.Since(escTime))
	}},
	{"time.Sleep", lwp.ClockOrTimer, here(1), func(g *given) {
		time.Sleep(time.Microsecond)
	}},
	{"time.After", lwp.ClockOrTimer, here(1), func(g *given) {
		time.After(time.Second)
	}},
	{"println", lwp.Printing, here(1), func(g *given) {
		println("never seen")
	}},
	{"fmt.Println", lwp.Printing, here(1), func(g *given) {
		fmt.Println("never seen")
	}},
	{"fmt.Sprint", lwp.Printing, here(1), func(g *given) {
		escStr = fmt.Sprint("never seen", g.m)
	}},
	{"log.Print", lwp.Printing, here(1), func(g *given) {
		g.log.Print("never seen")
	}},
	{"rand.Int", lwp.RuntimeCall, here(1), func(g *given) {
		g.n = rand.Int()
	}},
	{"sync.Pool", lwp.SyncPool, here(1), func(g *given) {
		escAny = g.pool.Get()
	}},
	{"write to an os.File", lwp.BlockingSyscall, here(1), func(g *given) {
		g.file.WriteString("x")
	}},
	{"unix.Syscall", lwp.BlockingSyscall, here(1), func(g *given) {
		unix.Syscall(unix.SYS_GETPID, 0, 0, 0)
	}},
	{"runtime.GC", lwp.RuntimeCall, here(1), func(g *given) {
		runtime.GC()
	}},
	{"runtime.LockOSThread", lwp.RuntimeCall, here(1), func(g *given) {
		runtime.LockOSThread()
	}},
	{"defer in a loop", lwp.DeferStatement, here(2), func(g *given) {
		for range g.n {
			defer g.fn()
		}
	}},
	{"nine defers", lwp.DeferStatement, here(1), func(g *given) {
		defer g.fn()
		defer g.fn()
		defer g.fn()
		defer g.fn()
		defer g.fn()
		defer g.fn()
		defer g.fn()
		defer g.fn()
		defer g.fn()
	}},
}

//go:noinline
func deepen(n int) int {
	if n < 0 {
		return 0
	}
	return deepen(n+1) + n
}

var misuseRows = []row{
	{"failing type assertion", lwp.TypeAssertion, here(1), func(g *given) {
		g.n = g.any.(int)
	}},
	{"failing assertion to an interface", lwp.TypeAssertion, here(1), func(g *given) {
		escStr = g.any.(fmt.Stringer).String()
	}},
	{"division by zero", lwp.DivideByZero, here(1), func(g *given) {
		g.n = g.n / g.zero
	}},
	{"remainder by zero", lwp.DivideByZero, here(1), func(g *given) {
		g.n = g.n % g.zero
	}},
	{"index", lwp.IndexOutOfRange, here(1), func(g *given) {
		g.n = g.ints[g.n]
	}},
	{"index of a string", lwp.IndexOutOfRange, here(1), func(g *given) {
		g.n = int(g.s[g.n])
	}},
	{"slice bounds", lwp.IndexOutOfRange, here(1), func(g *given) {
		g.ints = g.ints[g.n:]
	}},
	{"slice to array", lwp.IndexOutOfRange, here(1), func(g *given) {
		g.n = [9]int(g.ints)[0]
	}},
	{"negative shift", lwp.Panic, here(1), func(g *given) {
		g.n = 1 << (g.zero - 1)
	}},
	{"nil read", lwp.NilDereference, here(1), func(g *given) {
		g.n = g.none.n
	}},
	{"nil write", lwp.NilDereference, here(1), func(g *given) {
		g.none.addr = 1
	}},
	{"nil func", lwp.NilDereference, here(2), func(g *given) {
		var f = *(*func())(unsafe.Pointer(&g.none))
		f()
	}},
	{"nil copy", lwp.NilDereference, here(1), func(g *given) {
		copy(unsafe.Slice((*byte)(at(uintptr(g.zero+64))), g.n), g.s)
	}},
	{"assignment in a nil map", lwp.MapOperation, here(2), func(g *given) {
		var m = *(*map[int]int)(unsafe.Pointer(&g.none))
		m[1] = 1
	}},
	{"panic", lwp.Panic, here(1), func(g *given) {
		panic("at the thread")
	}},
	{"panic with what escapes", lwp.HeapAllocation, here(1), func(g *given) {
		panic(g.s)
	}},
	{"recover", lwp.Panic, here(2), func(g *given) {
		defer func() { recover() }()
		panic("recover me")
	}},
	{"unlock of an unlocked Mutex", lwp.Panic, here(1), func(g *given) {
		g.mu.Unlock()
	}},
	{"stack exhausted", lwp.StackOverflow, 0, func(g *given) {
		g.n = deepen(g.n)
	}},
	{"wild address", lwp.BadAddress, here(1), func(g *given) {
		*(*int)(at(uintptr(g.zero + 0x7654321000))) = 1
	}},
	{"copy to a wild address", lwp.BadAddress, here(1), func(g *given) {
		copy(unsafe.Slice((*byte)(at(uintptr(g.zero+0x7654321000))), 4), g.s)
	}},
	{"non-canonical address", lwp.BadAddress, here(1), func(g *given) {
		*(*int)(at(uintptr(g.zero + 0x123456789abcdef0))) = 1
	}},
	{"write to a string constant", lwp.BadAddress, here(1), func(g *given) {
		*unsafe.StringData(rowsConstant) = 'x'
	}},
	{"Abort", lwp.Explicit, here(1), func(g *given) {
		lwp.Abort("enough")
	}},
}

const rowsConstant = "a constant that no code may write to"

// unoptimized says whether the tests are built with -gcflags=-N.
var unoptimized = sync.OnceValue(func() bool {
	g := given{fn: func() {}}
	th, err := lwp.Start(func(g *given) { defer g.fn() }, &g)
	return err == nil && th.Join() != nil
})

func TestFaultIsNamedAndContained(t *testing.T) {
	lwptest.SkipRace(t)
	rand.Int() // sets itself up at first use, under a lock that a fault would leave held
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			g := newGiven(t)
			var f *lwp.Fault
			r.around(g, func() { f = fault(t, r.do, g, lwp.Attr{Name: "row"}) })
			want := r.want
			if f.Reason == lwp.DeferStatement && unoptimized() {
				want = f.Reason // defer needs the runtime then, anywhere
				r.line = 0
			}
			if r.name == "non-canonical address" && lwptest.Emulated() {
				want = f.Reason // qemu reports address 0
			}
			check(t, f, want, "fault_rows_test.go", r.line)
			if !strings.Contains(f.Error(), " (row): ") {
				t.Errorf("%q does not name the thread", f)
			}
			alive(t)
		})
	}
}
