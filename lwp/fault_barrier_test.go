package lwp_test

import (
	"flag"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/tls"
)

// marking keeps the collector marking until the test ends.
func marking(t testing.TB) {
	old := debug.SetGCPercent(5)
	live := newTree(18) // takes much longer to mark than there is between two collections
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		var keep [64][]*int
		for i := 0; !stop.Load(); i++ {
			keep[i%len(keep)] = make([]*int, 1<<12)
			for j := range 16 {
				keep[i%len(keep)][j] = new(int)
			}
		}
	})
	wg.Go(func() {
		for !stop.Load() {
			runtime.GC()
		}
	})
	t.Cleanup(func() {
		stop.Store(true)
		wg.Wait()
		runtime.KeepAlive(live)
		debug.SetGCPercent(old)
	})
}

type heapNode struct {
	next, prev *heapNode
	name       string
	data       []byte
	any        any
	fn         func(int) int
	id         int
}

// leaf is as much as one struct assignment copies.
type leaf struct {
	p *heapNode
	s string
	n int
	q [3]*heapNode
}

const poolNodes = 128

// world is what one thread works on. It lies off the Go heap, and so does all
// that its pointers lead to but m, kept and the tree, which others keep alive.
type world struct {
	stop    *atomic.Bool
	shared  *stack
	m       map[int][]*heapNode
	tree    *heapTree
	key     tls.Key[leaf]
	me      int
	defers  bool
	rounds  int
	skipped atomic.Int64
	why     int // line of the first thing that was wrong

	pool   [poolNodes]heapNode
	free   *heapNode
	list   heapNode // circular
	queue  [16]string
	in     uint
	out    uint
	ptrs   [2][poolNodes]*heapNode
	leaves [8]leaf
	slot   atomic.Pointer[heapNode]
	raw    unsafe.Pointer
	tmp    any
	slices [][]*heapNode
}

// heapTree is on the Go heap and read only.
type heapTree struct {
	left, right *heapTree
	n           int
	s           string
}

func newTree(depth int) *heapTree {
	if depth == 0 {
		return nil
	}
	return &heapTree{newTree(depth - 1), newTree(depth - 1), depth, string(rune('a' + depth))}
}

func (t *heapTree) sum() int {
	if t == nil {
		return 0
	}
	return t.n + len(t.s) + t.left.sum() + t.right.sum()
}

// stack is lock-free and shared by threads and goroutines.
type stack struct {
	top atomic.Pointer[heapNode]
	mu  futex.Mutex // pops, one at a time: no node comes back meanwhile
}

func (s *stack) push(n *heapNode) {
	for {
		old := s.top.Load()
		n.next = old
		if s.top.CompareAndSwap(old, n) {
			return
		}
	}
}

func (s *stack) pop() *heapNode {
	s.mu.Lock()
	n := s.top.Load()
	for n != nil && !s.top.CompareAndSwap(n, n.next) {
		n = s.top.Load()
	}
	s.mu.Unlock()
	return n
}

const text = "a constant, which is an interface without an allocation"

var names = [...]string{"one", "two", "three", "four", "five"}

func double(n int) int { return 2 * n }
func triple(n int) int { return 3 * n }

// Package variables that threads store to, of which each has its own part.
var (
	globalNodes  [4][poolNodes]*heapNode
	globalLeaves [4]leaf
	globalNode   [4]*heapNode
	globalAny    [4]any
	globalSlot   [4]atomic.Pointer[heapNode]
)

func (w *world) must(ok bool) {
	if !ok && w.why == 0 {
		w.why = w.rounds + 1
	}
}

// lists builds a list of all nodes, splices it and walks it.
func (w *world) lists() {
	w.list.next, w.list.prev = &w.list, &w.list
	for n := w.free; n != nil; {
		next := n.next
		last := w.list.prev
		n.prev, n.next = last, &w.list
		last.next, w.list.prev = n, n
		n.name = names[n.id%len(names)]
		n.data = unsafe.Slice((*byte)(unsafe.Pointer(n)), n.id%8)
		n.any = n
		n.fn = double
		if n.id%2 == 1 {
			n.fn = triple
			n.any = text
		}
		n = next
	}
	// The first third goes to the end.
	first, last := w.list.next, w.list.next
	for range poolNodes / 3 {
		last = last.next
	}
	w.list.next, last.next.prev = last.next, &w.list
	first.prev, last.next = w.list.prev, &w.list
	w.list.prev.next = first
	w.list.prev = last

	count, back := 0, 0
	for n := w.list.next; n != &w.list; n = n.next {
		w.must(n.next.prev == n && n.name == names[n.id%len(names)] && len(n.data) == n.id%8)
		if n.id%2 == 1 {
			w.must(n.fn(n.id) == 3*n.id && n.any == any(text))
		} else {
			w.must(n.fn(n.id) == 2*n.id && n.any == any(n))
		}
		count++
	}
	for n := w.list.prev; n != &w.list; n = n.prev {
		back += n.id
	}
	w.must(count == poolNodes && back == poolNodes*(poolNodes-1)/2)
	w.free = nil
	for n := w.list.next; n != &w.list; {
		next := n.next
		n.next, n.prev, n.any = w.free, nil, nil
		w.free = n
		n = next
	}
}

// maps overwrites the slices of a map, of which none is on the Go heap.
func (w *world) maps() {
	for i := range w.slices {
		w.m[i] = w.slices[(i+w.rounds)%len(w.slices)]
	}
	for i := range w.slices {
		s := w.m[i]
		w.must(len(s) == len(w.slices[(i+w.rounds)%len(w.slices)]) && s[0] == w.slices[(i+w.rounds)%len(w.slices)][0])
	}
	w.must(len(w.m) == len(w.slices))
}

// strings queues strings.
func (w *world) strings() {
	for i := range uint(100) {
		for w.in-w.out < uint(len(w.queue)) {
			w.queue[w.in%uint(len(w.queue))] = names[w.in%uint(len(names))][:2]
			w.in++
		}
		for range 1 + i%7 {
			at := &w.queue[w.out%uint(len(w.queue))]
			w.must(*at == names[w.out%uint(len(names))][:2])
			*at = ""
			w.out++
		}
	}
}

// bulk copies, clears and assigns.
func (w *world) bulk() {
	for i := range w.ptrs[0] {
		w.ptrs[0][i] = &w.pool[i]
	}
	w.must(copy(w.ptrs[1][:], w.ptrs[0][1:]) == poolNodes-1)
	w.must(w.ptrs[1][5] == &w.pool[6])
	slices.Reverse(w.ptrs[1][:10])
	w.must(w.ptrs[1][0] == &w.pool[10])
	w.ptrs[1] = w.ptrs[0]
	w.must(w.ptrs[1] == w.ptrs[0])
	clear(w.ptrs[1][:])
	w.must(w.ptrs[1][7] == nil && w.ptrs[0][7] == &w.pool[7])
	w.ptrs[0] = [poolNodes]*heapNode{}
	w.must(w.ptrs[0] == w.ptrs[1])

	l := leaf{&w.pool[1], names[1], 7, [3]*heapNode{&w.pool[2], nil, &w.pool[3]}}
	for i := range w.leaves {
		w.leaves[i] = l
	}
	w.leaves[0] = leaf{}
	copy(w.leaves[1:], w.leaves[:])
	w.must(w.leaves[0] == w.leaves[1] && w.leaves[2] == l)
	w.leaves[3], w.leaves[1] = w.leaves[1], w.leaves[3]
	w.must(w.leaves[1] == l && w.leaves[3] == leaf{})
	w.must(w.key.Set(l) == nil)
	*w.key.Ptr() = w.leaves[1]
	got, ok := w.key.Get()
	w.must(ok && got == l)
}

// atomics stores pointers atomically.
func (w *world) atomics() {
	a, b := &w.pool[0], &w.pool[1]
	w.slot.Store(a)
	w.must(w.slot.Swap(b) == a && w.slot.CompareAndSwap(b, a) && !w.slot.CompareAndSwap(b, nil) && w.slot.Load() == a)
	atomic.StorePointer(&w.raw, unsafe.Pointer(b))
	w.must(atomic.SwapPointer(&w.raw, nil) == unsafe.Pointer(b) && atomic.CompareAndSwapPointer(&w.raw, nil, unsafe.Pointer(a)))
	w.tmp = w
	w.tmp = a.id // a small constant
	w.tmp = text
	w.must(w.tmp == any(text))
}

//go:noinline
func put(to **heapNode, n *heapNode) { *to = n }

//go:noinline
func putAll(to, from []*heapNode) int { return copy(to, from) }

//go:noinline
func putLeaf(to *leaf, l leaf) { *to = l }

//go:noinline
func wipe(s []*heapNode) { clear(s) }

// stacked stores to the thread's own stack, through pointers.
func (w *world) stacked() {
	var one *heapNode
	var many [40]*heapNode
	var l leaf
	put(&one, &w.pool[9])
	w.must(one == &w.pool[9])
	for i := range w.ptrs[0] {
		w.ptrs[0][i] = &w.pool[i]
	}
	w.must(putAll(many[:], w.ptrs[0][:]) == len(many) && many[39] == &w.pool[39])
	wipe(many[:20])
	w.must(many[19] == nil && many[20] == &w.pool[20])
	putLeaf(&l, leaf{p: one, s: names[0]})
	w.must(l.p == one && l.s == names[0])
	f := func(n *heapNode) { one = n }
	f(nil)
	w.must(one == nil)
}

// deferred stores from a deferred closure.
func (w *world) deferred() {
	one := &w.pool[7]
	defer func() { w.must(one == nil) }()
	put(&one, nil)
}

// globals stores to package variables, which hold nothing of the Go heap.
func (w *world) globals() {
	me := w.me
	globalNode[me] = &w.pool[3]
	globalAny[me] = w
	globalSlot[me].Store(&w.pool[4])
	w.must(globalNode[me] == &w.pool[3] && globalAny[me] == any(w) && globalSlot[me].Swap(nil) == &w.pool[4])
	w.must(putAll(globalNodes[me][:], w.ptrs[0][:]) == poolNodes)
	w.must(globalNodes[me] == w.ptrs[0])
	wipe(globalNodes[me][:])
	putLeaf(&globalLeaves[me], w.leaves[1])
	w.must(globalLeaves[me] == w.leaves[1] && globalNodes[me][1] == nil)
	globalLeaves[me] = leaf{}
}

// share passes nodes through the shared stack.
func (w *world) share() {
	for range 20 {
		n := w.shared.pop()
		if n == nil {
			return
		}
		n.name = names[n.id%len(names)]
		w.shared.push(n)
	}
}

func live(w *world) {
	for !w.stop.Load() && w.why == 0 {
		w.lists()
		w.maps()
		w.strings()
		w.bulk()
		w.atomics()
		w.stacked()
		if w.defers {
			w.deferred()
		}
		w.globals()
		w.share()
		w.must(w.tree.sum() == w.tree.n+len(w.tree.s)+w.tree.left.sum()+w.tree.right.sum())
		w.rounds++
		w.skipped.Store(int64(lwp.SkippedBarriers()))
	}
}

func newWorld(t testing.TB, a *lwp.Arena, me int) *world {
	t.Helper()
	w, err := lwp.New[world](a)
	if err != nil {
		t.Fatal(err)
	}
	w.me = me
	for i := range w.pool {
		w.pool[i].id = i
		w.pool[i].next, w.free = w.free, &w.pool[i]
	}
	if w.slices, err = lwp.NewSlice[[]*heapNode](a, 16); err != nil {
		t.Fatal(err)
	}
	for i := range w.slices {
		if w.slices[i], err = lwp.NewSlice[*heapNode](a, i+1); err != nil {
			t.Fatal(err)
		}
		w.slices[i][0] = &w.pool[i]
	}
	return w
}

var barrierTime = flag.Duration("barriers", 30*time.Second, "how long threads store pointers while the collector marks")

func TestPointerStoresWhileTheCollectorMarks(t *testing.T) {
	lwptest.SkipRace(t)
	d := *barrierTime
	if testing.Short() || lwptest.Emulated() {
		d = 2 * time.Second
	}
	var arena lwp.Arena
	defer arena.Close()
	shared, err := lwp.New[stack](&arena)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := lwp.NewSlice[heapNode](&arena, 64)
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		nodes[i].id = i
		shared.push(&nodes[i])
	}
	key, err := tls.NewKey[leaf](nil)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Delete()
	stop, root := new(atomic.Bool), newTree(8)
	marking(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var worlds [4]*world
	var maps [4]map[int][]*heapNode // kept alive here
	var threads [4]lwp.Thread
	for i := range worlds {
		w := newWorld(t, &arena, i)
		maps[i] = map[int][]*heapNode{}
		for j, s := range w.slices {
			maps[i][j] = s
		}
		w.stop, w.shared, w.m, w.tree, w.key = stop, shared, maps[i], root, key
		w.defers = !unoptimized()
		worlds[i] = w
		if threads[i], err = lwp.StartAttr(live, w, lwp.Attr{Name: "worlds"}); err != nil {
			t.Fatal(err)
		}
	}
	// For the time given, and until enough has happened.
	enough := func() bool {
		runtime.ReadMemStats(&after)
		for i := range worlds {
			if worlds[i].skipped.Load() < 100 {
				return false
			}
		}
		return after.NumGC-before.NumGC >= 3
	}
	began := time.Now()
	for time.Since(began) < d || !enough() && time.Since(began) < d+time.Minute {
		for range 100 {
			if n := shared.pop(); n != nil {
				n.name = "hosted"
				shared.push(n)
			}
		}
		time.Sleep(time.Millisecond)
	}
	stop.Store(true)
	for i, th := range threads {
		if err := th.Join(); err != nil {
			t.Errorf("%v\n%s", err, err.(*lwp.Fault).Stack())
			continue
		}
		if w := worlds[i]; w.why != 0 {
			t.Errorf("thread %d went wrong in round %d", i, w.why)
		} else {
			skipped := w.skipped.Load()
			t.Logf("thread %d: %d rounds, %d barriers", i, w.rounds, skipped)
			if skipped < 100 {
				t.Errorf("thread %d met the collector marking %d times only", i, skipped)
			}
		}
	}
	n := 0
	for shared.pop() != nil {
		n++
	}
	if n != len(nodes) {
		t.Errorf("%d of %d shared nodes are left", n, len(nodes))
	}
	runtime.ReadMemStats(&after)
	if cycles := after.NumGC - before.NumGC; cycles < 3 {
		t.Errorf("%d collections in %v", cycles, time.Since(began))
	}
	runtime.KeepAlive(maps)
	runtime.KeepAlive(root)
	clear(globalAny[:])
	alive(t)
}
