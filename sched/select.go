package sched

import (
	"runtime"
	"unsafe"

	"lwprt/asm"
)

// A Case is something that Select can wait for: made for one call, by the
// methods of a Chan and others.
type Case struct {
	on   unsafe.Pointer // what begins with the queue; nil is never ready
	data unsafe.Pointer // the value, for a channel
	size uintptr

	// ready says whether a case is ready that is not a channel's, and takes what
	// makes it so if it shall. It is nosplit, as it is called under the latch.
	ready func(on unsafe.Pointer, take bool) bool

	later uint32 // number of the case whose latch is taken after this one's, or 0
	kind  uint8
	timed bool // it is a Timer's
}

// MaxCases is how many cases a Select can have.
const MaxCases = 64

// toWait is the kind of a Case that is not a channel's.
const toWait = 0

// SendCase is the case that *v, as it is when that happens, is sent. On a
// closed channel it is ready too, and ends in ErrChanClosed.
func (c *Chan[T]) SendCase(v *T) Case {
	_ = *v // a nil v faults here, and not with a latch held
	return Case{kind: toSend, on: unsafe.Pointer(c), data: unsafe.Pointer(v), size: unsafe.Sizeof(*v)}
}

// RecvCase is the case that a value is received into *v. On a channel that is
// closed and empty it is ready too, and ends in ErrChanClosed, *v then being zero.
func (c *Chan[T]) RecvCase(v *T) Case {
	_ = *v // as in SendCase
	return Case{kind: toRecv, on: unsafe.Pointer(c), data: unsafe.Pointer(v), size: unsafe.Sizeof(*v)}
}

// Select waits until one of the cases is ready, has it happen, and returns its
// index. Of several that are ready each is as likely as the others. One of a
// nil channel never is; without any that can be, Select does not return.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// Errors: ErrChanClosed, with the index of the case; ErrCases for more than
// MaxCases, with index -1.
// Ordering: as that of the case.
func Select(cases ...Case) (int, error) {
	me, f := here()
	if f == nil || len(cases) > 4 {
		return choose(cases, nil)
	}
	if !me.canStop() {
		// What next does then: a look at everything, and the oldest have their
		// turn, whom those that wake each other here would keep waiting for ever.
		Yield()
		if me = self(); !me.canStop() {
			return choose(cases, nil)
		}
	}
	first := inOrder(cases)
	i, out := first.attempt(me, cases)
	if out != notReady {
		return i, cases[i].result(out)
	}
	if elsewhere(me, cases) {
		first.unlock(cases)
		return choose(cases, nil)
	}
	var w struct {
		wait
		nodes [4]node
	}
	nodes := w.nodes[:len(cases)]
	to := w.halt(me, f, first, cases, nodes)
	asm.SwitchJump(&f.Context, &to.Context, (*uint32)(noescape(unsafe.Pointer(&w.going))))
	w.leaveAll(nodes, true) // before the stack can run out
	return asm.Return(w.chosen(cases, nodes))
}

// SelectWithin is Select with a limit.
//
// Errors: also ErrTimeout and ErrCanceled, with index -1: nothing has happened then.
func SelectWithin(l Limit, cases ...Case) (int, error) { return choose(cases, &l) }

// TrySelect is Select that does not wait.
//
// Errors: also ErrNotReady, with index -1.
func TrySelect(cases ...Case) (int, error) {
	if len(cases) > MaxCases {
		return -1, ErrCases
	}
	first := inOrder(cases)
	me, _ := here()
	me.needRoom()
	i, out := first.attempt(me, cases)
	if out != notReady {
		return i, cases[i].result(out)
	}
	first.unlock(cases)
	return -1, ErrNotReady
}

func choose(cases []Case, l *Limit) (int, error) {
	if i, err := TrySelect(cases...); err != ErrNotReady {
		return i, err
	}
	b, err := l.bound()
	if err != nil {
		return -1, err
	}
	if asm.Current() == nil {
		return chooseHosted(cases, b)
	}
	switch n := len(cases); {
	case n <= 2:
		return choose2(cases, b)
	case n <= 4:
		return choose4(cases, b)
	case n <= 8:
		return choose8(cases, b)
	}
	return chooseMany(cases, b)
}

// The nodes of so many cases, and no more, are on the stack.
//
//go:noinline // they are not to be on that of choose
func choose2(cases []Case, b bound) (int, error) {
	var w bounded
	var nodes [2]node
	return w.wait.choose(cases, nodes[:len(cases)], b, &w.cancel)
}

//go:noinline // as choose2
func choose4(cases []Case, b bound) (int, error) {
	var w bounded
	var nodes [4]node
	return w.wait.choose(cases, nodes[:len(cases)], b, &w.cancel)
}

//go:noinline // as choose2
func choose8(cases []Case, b bound) (int, error) {
	var w bounded
	var nodes [8]node
	return w.wait.choose(cases, nodes[:len(cases)], b, &w.cancel)
}

//go:noinline // as choose2
func chooseMany(cases []Case, b bound) (int, error) {
	var w bounded
	var nodes [MaxCases]node
	return w.wait.choose(cases, nodes[:len(cases)], b, &w.cancel)
}

// chooseHosted is choose on a goroutine, whose stack may move.
func chooseHosted(cases []Case, b bound) (int, error) {
	w := newBounded(nil)
	kept := make([]Case, len(cases))
	nodes := newNodes(len(cases))
	boxes := make([]unsafe.Pointer, len(cases))
	for i := range cases {
		checkPlace(cases[i].on)
		kept[i] = *(*Case)(noescape(unsafe.Pointer(&cases[i])))
		kept[i].data = nil // which may be on the stack
		if size := kept[i].size; size != 0 {
			boxes[i] = newBox(size)
			move(boxes[i], cases[i].data, size)
			kept[i].data = boxes[i]
		}
	}
	i, err := w.wait.choose(kept, nodes, b, &w.cancel)
	if i >= 0 && kept[i].kind == toRecv {
		move(cases[i].data, kept[i].data, kept[i].size)
	}
	runtime.KeepAlive(w)
	runtime.KeepAlive(kept)
	runtime.KeepAlive(nodes)
	runtime.KeepAlive(boxes)
	return i, err
}

//go:noinline // they must not be put on the stack
func newNodes(n int) []node { return make([]node, n) }

// halt is what Select does between a look that has found nothing ready and the
// switch to what it returns, which has the fiber wait: one that is taken at once
// is made ready when going is 0. The latches are held from the look until the
// nodes are in the queues: nobody can take one before the caller is in all of
// them, and two Selects that meet see one another.
//
//go:nosplit // see latch
func (w *wait) halt(me *worker, f *fiber, first order, cases []Case, nodes []node) (to *fiber) {
	w.beginAll(me, f, nodes)
	w.off, w.going = true, 1
	w.enterAll(me, f, cases, nodes, 0)
	first.unlock(cases)
	f.stopAt(w, whySelect, me.clock)
	return me.follow()
}

// elsewhere says whether there is a Timer among the cases that is in the wheel of
// another scheduler than me's; under the latches.
//
//go:nosplit // see latch
func elsewhere(me *worker, cases []Case) bool {
	for i := range cases {
		if x := &cases[i]; x.timed && x.on != nil && (*Timer)(x.on).elsewhere(me) {
			return true
		}
	}
	return false
}

//go:nosplit // see latch
func (w *wait) beginAll(me *worker, f *fiber, nodes []node) {
	w.begin(me, f, true)
	w.nodes, w.n = uintptr(unsafe.Pointer(w)), 0
	if len(nodes) > 0 {
		w.nodes, w.n = uintptr(unsafe.Pointer(&nodes[0])), uint32(len(nodes))
	}
}

// chosen is the end of a Select that has waited, without a limit.
func (w *wait) chosen(cases []Case, nodes []node) (int, error) {
	i := int(w.claim) - 1
	if cases[i].again(&nodes[i]) {
		return choose(cases, nil)
	}
	return i, cases[i].result(cases[i].outcome(&nodes[i]))
}

// outcome is that of a case whose node was taken.
func (x *Case) outcome(n *node) outcome {
	if !n.ok && x.kind != toWait {
		return closed
	}
	return done
}

// choose is Select with w and nodes to wait until b, and t for a Token.
func (w *wait) choose(cases []Case, nodes []node, b bound, t *node) (int, error) {
	for {
		first := inOrder(cases)
		me, f := here()
		me.needRoom()
		w.beginAll(me, f, nodes)
		i, out := first.attempt(me, cases)
		if out != notReady {
			return i, cases[i].result(out)
		}
		lim := b
		lim.at = w.enterAll(me, f, cases, nodes, b.at)
		first.unlock(cases)
		err := w.suspendWithin(me, f, whySelect, lim, t)
		w.leaveAll(nodes, err == nil)
		if err == nil {
			i = int(w.claim) - 1
		}
		if err == ErrTimeout && lim.at != b.at || err == nil && cases[i].again(&nodes[i]) {
			w.claim, w.word, w.token = 0, 0, 0
			continue
		}
		if err != nil {
			return -1, err
		}
		return i, cases[i].result(cases[i].outcome(&nodes[i]))
	}
}

// again says that n was taken because x's Timer has changed.
func (x *Case) again(n *node) bool { return x.timed && !n.ok }

// enterAll puts a node for each case into its queue, and returns when a Timer
// among them is to be looked at again, or at if that is not later; under their
// latches.
//
//go:nosplit // see latch
func (w *wait) enterAll(me *worker, f *fiber, cases []Case, nodes []node, at int64) int64 {
	for i := range nodes {
		if x, n := &cases[i], &nodes[i]; x.on != nil {
			n.whose, n.index, n.value, n.kind, n.ok = uintptr(unsafe.Pointer(w)), uint32(i+1), uintptr(x.data), x.kind, false
			if x.timed {
				at = (*Timer)(x.on).join(me, f, n, at)
			} else {
				(*queue)(x.on).add(n)
			}
		}
	}
	return at
}

// leaveAll takes them out again, but for one that was taken.
//
//go:nosplit // see latch
func (w *wait) leaveAll(nodes []node, taken bool) {
	me, _ := here()
	for i := range nodes {
		if n := &nodes[i]; !taken || w.claim != n.index {
			n.leave(me)
		}
	}
}

// result is the end of a case.
func (x *Case) result(out outcome) error {
	if out == closed && x.kind == toRecv {
		clear(unsafe.Slice((*byte)(x.data), x.size))
	}
	return outcomes[out]
}

// An order is the number, from 1, of the case whose latch is taken first, which
// leads to the others; 0 if there is none. They are numbers and not addresses:
// on a goroutine the cases can lie on its stack, and that can move.
type order uint32

// inOrder links the cases in the order of their latches.
func inOrder(cases []Case) order {
	var first uint32
	for i := range cases {
		x := &cases[i]
		if x.on == nil {
			continue
		}
		at := &first
		for *at != 0 && uintptr(cases[*at-1].on) < uintptr(x.on) {
			at = &cases[*at-1].later
		}
		x.later, *at = *at, uint32(i+1)
	}
	return order(first)
}

// lock takes the latches of the cases, each once.
//
//go:nosplit // see latch
func (first order) lock(cases []Case) {
	var last unsafe.Pointer
	for i := uint32(first); i != 0; i = cases[i-1].later {
		if on := cases[i-1].on; on != last {
			(*queue)(on).latch.lock()
			last = on
		}
	}
}

// unlock undoes lock.
//
//go:nosplit // see latch
func (first order) unlock(cases []Case) {
	var last unsafe.Pointer
	for i := uint32(first); i != 0; i = cases[i-1].later {
		if on := cases[i-1].on; on != last {
			last = on
			(*queue)(on).latch.unlock()
		}
	}
}

// attempt has one of the cases happen that are ready and gives the latches
// back; or returns notReady, with the latches held.
func (first order) attempt(me *worker, cases []Case) (int, outcome) {
	first.lock(cases)
	for {
		i := pick(me, cases)
		if i < 0 {
			return i, notReady
		}
		x, n, out := &cases[i], (*node)(nil), done
		if x.kind == toWait {
			x.ready(noescape(x.on), true)
		} else {
			n, out = (*channel)(x.on).try(me, x.kind, x.data, x.size)
		}
		if out == notReady {
			continue // somebody else has ended the other side's wait
		}
		first.unlock(cases)
		if n != nil {
			n.resume(me)
		}
		return i, out
	}
}

// pick returns the index of one of the cases that are ready, or -1; under the
// latches.
//
//go:nosplit // see latch
func pick(me *worker, cases []Case) int {
	for {
		ready := uint64(0)
		last := -1
		for i := range cases {
			if cases[i].isReady() {
				ready++
				last = i
			}
		}
		if ready <= 1 {
			return last
		}
		k := dice(me) % ready
		for i := range cases {
			if cases[i].isReady() {
				if k == 0 {
					return i
				}
				k--
			}
		}
		// Somebody else has ended the wait of one that was ready: again.
	}
}

// isReady says whether x is ready; under the latch.
//
//go:nosplit // see latch
func (x *Case) isReady() bool {
	switch {
	case x.on == nil:
		return false
	case x.kind == toWait:
		return x.ready(noescape(x.on), false)
	}
	if c := (*channel)(x.on); c.q.first != 0 || c.count != 0 || c.closed || x.kind == toSend {
		return c.isReady(x.kind)
	}
	return false
}

// dice returns a random number.
//
//go:nosplit // see latch
func dice(me *worker) uint64 {
	if me == nil {
		return asm.Cycles() * 0x9e3779b97f4a7c15 >> 32
	}
	me.random ^= me.random << 13
	me.random ^= me.random >> 7
	me.random ^= me.random << 17
	return me.random >> 32
}
