package freestanding

import (
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// everyFunction returns all functions of this program.
func everyFunction(t *testing.T) (fs []*function) {
	program.Lock()
	defer program.Unlock()
	reset()
	pc := reflect.ValueOf(os.Getpid).Pointer()
	for _, r := range regions() {
		if r.lo <= pc && pc < r.hi {
			pc = r.lo
		}
	}
	for runtime.FuncForPC(pc) == nil {
		pc += 16
	}
	for f := lookup(pc); f != nil; f = lookup(pc) {
		_, pc = bounds(f.entry)
		fs = append(fs, f)
	}
	if len(fs) < 1000 {
		t.Fatalf("only %d functions", len(fs))
	}
	return fs
}

func TestEveryFunctionCanBeRead(t *testing.T) {
	if testing.Short() {
		t.Skip("reads the whole program")
	}
	insts, bad := 0, 0
	for _, f := range everyFunction(t) {
		program.Lock()
		f.decode()
		starts := map[uintptr]bool{}
		for i := range f.insts {
			starts[f.insts[i].pc] = true
		}
		for i := range f.insts {
			in := &f.insts[i]
			insts++
			if (in.flow == jump || in.flow == branch) && f.holds(in.target) && !starts[in.target] {
				bad++
				t.Logf("%s+%#x branches into an instruction", f.name, in.pc-f.entry)
			}
		}
		if last := &f.insts[len(f.insts)-1]; last.next != f.end {
			t.Errorf("%s: the last instruction ends at %#x, the function at %#x", f.name, last.next, f.end)
		}
		f.read()
		f.insts = nil
		program.Unlock()
	}
	if insts < 100000 || bad > 0 {
		t.Errorf("%d of %d instructions branch into one", bad, insts)
	}
}

func TestGarbageIsDecodedWithoutPanic(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 40)
	for range 100000 {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		for i := 0; i < len(b); {
			in := decode(b[i:], uintptr(i))
			if in.next <= in.pc || in.next > uintptr(len(b)) || in.op != opNone && in.dst.kind == register && in.dst.reg >= max(nregs, 32) {
				t.Fatalf("% x: %+v", b, in)
			}
			i = int(in.next)
		}
	}
}

// Where terminal stops following, the thread must really fault.
func TestTerminalsLookAtM(t *testing.T) {
	found := map[string]bool{}
	for _, f := range everyFunction(t) {
		for _, e := range ends {
			// cgo's are reached by way of assembly that a C compiler has a part
			// in, and detectors are not linked.
			if !strings.HasPrefix(f.name, e.prefix) || strings.Contains(f.name, ".func") || e.reason == ForeignCode || e.reason == Detector {
				continue
			}
			if suffix := strings.TrimPrefix(f.name, e.prefix); suffix != "" && e.prefix != "runtime.mallocgc" {
				continue
			}
			found[e.prefix] = true
			if !looksAtM(f) {
				t.Errorf("%s does not look at g.m", f.name)
			}
		}
	}
	for _, name := range []string{"runtime.mallocgc", "runtime.gopark", "runtime.systemstack", "runtime.mcall", "runtime.newproc", "runtime.reentersyscall"} {
		if !found[name] {
			t.Errorf("no %s in this runtime", name)
		}
	}
}

// looksAtM is fate without terminals.
func looksAtM(f *function) bool {
	program.Lock()
	defer program.Unlock()
	queue := []*function{f}
	for i := 0; i < len(queue); i++ {
		f := queue[i]
		f.read()
		if len(f.gm) > 0 {
			return true
		}
		for _, c := range f.calls {
			if c.callee != nil && !slices.Contains(queue, c.callee) {
				queue = append(queue, c.callee)
			}
		}
	}
	return false
}

func TestNamesThatTheRuntimeLostAreNoticed(t *testing.T) {
	names := map[string]bool{}
	for _, f := range everyFunction(t) {
		names[f.name] = true
	}
	for _, name := range []string{"runtime.gcWriteBarrier1", "runtime.wbMove", "runtime.wbZero", "runtime.bulkBarrierPreWrite",
		"runtime.growslice", "runtime.gopanic", "runtime.throw", "runtime.fatal", "runtime.morestack", "runtime.morestack_noctxt",
		"runtime.panicdivide", "runtime.concatstrings", "runtime.slicebytetostring", "runtime.convT64", "runtime.deferreturn",
		"internal/sync.(*Mutex).lockSlow", "internal/sync.runtime_SemacquireMutex", "runtime.mapassign_faststr"} {
		if !names[name] {
			t.Errorf("this program has no %s: does the runtime call it otherwise now?", name)
		}
	}
}

var deepestAddr uintptr

//go:noinline
func depth1(n int) int {
	var a [500]byte
	a[n] = 1
	return depth2(n) + int(a[n/2])
}

//go:noinline
func depth2(n int) int {
	var a [9000]byte
	a[n] = 2
	return depth3(n+1) + int(a[n/2])
}

//go:noinline
func depth3(n int) int {
	var a [100]byte
	a[n] = 3
	deepestAddr = uintptr(unsafe.Pointer(&a))
	return int(a[n/2])
}

func TestDeepestStackIsWhatIsUsed(t *testing.T) {
	done := make(chan uintptr)
	go func() {
		depth1(4) // so that the stack is large enough, and need not move
		var here [9]byte
		here[depth1(4)] = 1
		done <- uintptr(unsafe.Pointer(&here)) - deepestAddr
	}()
	used := <-done
	r, err := Check(depth1)
	if err != nil {
		t.Fatal(err)
	}
	// used counts from a variable of the caller to one of the last function.
	if n := uintptr(r.Stack.Bytes); n+256 < used || n > used+256 || len(r.Stack.Path) != 3 {
		t.Errorf("%d bytes used, the report says\n%v", used, r)
	}
}
