package freestanding

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
)

// Errors of Check.
var (
	ErrNotFunc = errors.New("freestanding: not a func")
	ErrNilFunc = errors.New("freestanding: the func is nil")
	ErrRace    = errors.New("freestanding: programs built with -race, -msan or -asan call the detector everywhere")
)

// An Option changes what Check reports.
type Option func(*checker)

// Except makes Check not follow calls of the function with this name, which
// is as in a report: "path/of/pkg.Func", "path/of/pkg.(*Type).Method". why
// says why that is right; it appears in the report.
func Except(name, why string) Option {
	return func(c *checker) { c.except[name] = why }
}

// WithinCapacity makes Check report what depends on the amount of data as
// Conditional: append, map insertion, strings that have room for 32 bytes. It is for
// code that is known to keep within its room.
func WithinCapacity(c *checker) { c.capacity = true }

// Check reads the machine code of fn, of what it calls and so on, and reports
// the calls that would fault on a freestanding thread. fn is a func value of
// any type; of a closure, the code is checked, and of a generic function, the
// instance.
//
// Context: goroutine.
// Errors: ErrNotFunc, ErrNilFunc, ErrRace; another if the machine code of this program
// is not as this package assumes.
func Check(fn any, options ...Option) (Report, error) {
	v := reflect.ValueOf(fn)
	switch {
	case v.Kind() != reflect.Func:
		return Report{}, ErrNotFunc
	case v.IsNil():
		return Report{}, ErrNilFunc
	}
	if instrumented {
		return Report{}, ErrRace
	}
	if err := recognized(); err != nil {
		return Report{}, err
	}
	program.Lock()
	defer program.Unlock()
	return check(v.Pointer(), options)
}

// recognized checks that the runtime looks as expected, by functions of which
// the answer is known.
var recognized = sync.OnceValue(func() error {
	program.Lock()
	defer program.Unlock()
	for _, fn := range []func(){runtime.LockOSThread, runtime.Gosched} {
		r, err := check(reflect.ValueOf(fn).Pointer(), nil)
		if err != nil {
			return err
		}
		if r.OK() {
			return fmt.Errorf("freestanding: not supported with %s: no use of the thread's state found in %s", runtime.Version(), r.Func)
		}
	}
	return nil
})

type checker struct {
	except   map[string]string
	capacity bool

	report Report
	fates  map[*function]*fate
	used   map[string]bool
	seen   map[string]bool // findings, by their text
	depths map[*function]*depth
}

// A node is a function that is reached, and how.
type node struct {
	fn   *function
	from *node
	via  callSite // in from
}

func check(pc uintptr, options []Option) (Report, error) {
	c := &checker{except: map[string]string{}, fates: map[*function]*fate{}, used: map[string]bool{},
		seen: map[string]bool{}, depths: map[*function]*depth{}}
	for _, o := range options {
		o(c)
	}
	reset()
	defer reset()
	root := lookup(pc)
	if root == nil {
		return Report{}, fmt.Errorf("freestanding: no function at %#x", pc)
	}
	c.report.Func = root.name
	queue := []*node{{fn: root}}
	reached := map[*function]bool{root: true}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, next := range c.visit(n) {
			if next.fn.runtime && next.via.way == asValue || reached[next.fn] {
				continue
			}
			reached[next.fn] = true
			queue = append(queue, next)
		}
	}
	c.report.Funcs = len(reached)
	for name := range c.used {
		c.report.Excepted = append(c.report.Excepted, name+": "+c.except[name])
	}
	d := c.deepest(root, nil)
	c.report.Stack = Stack{Bytes: d.bytes + retAddr, Path: d.path(root)}
	if cycle := d.cycle; cycle != nil {
		c.report.Stack = Stack{Bytes: cycle.bytes, Cycle: cycle.frames}
	}
	return c.report, nil
}

// visit reports what is wrong in a function, and returns those it leads to.
func (c *checker) visit(n *node) (next []*node) {
	f := n.fn
	f.read()
	for _, ret := range f.gm {
		c.add(&c.report.Faults, n, callSite{ret: ret}, Finding{Reason: RuntimeState, Into: []string{"g.m"}})
	}
	for _, s := range f.calls {
		if s.way != direct {
			what := "call of an interface method"
			if s.way == viaFuncValue {
				what = "call of a func value"
			}
			c.add(&c.report.Unresolved, n, s, Finding{When: what})
			continue
		}
		to := s.callee
		if c.isExcepted(to.name) || to == f || to.name == "runtime.deferreturn" {
			continue
		}
		if c.exception(n, s, []string{to.name}) {
			continue
		}
		if !to.runtime && to != foreign {
			next = append(next, &node{to, n, s})
			continue
		}
		c.intoRuntime(n, s)
	}
	for _, s := range f.cold {
		c.panics(n, s, f.panics && n.via.way != asValue)
	}
	for _, s := range f.taken {
		if s.callee.runtime || c.isExcepted(s.callee.name) {
			continue
		}
		next = append(next, &node{s.callee, n, s})
	}
	return next
}

func (c *checker) isExcepted(name string) bool {
	_, ok := c.except[name]
	if ok {
		c.used[name] = true
	}
	return ok
}

// intoRuntime reports a call of the runtime.
func (c *checker) intoRuntime(n *node, s callSite) {
	t := c.fate(s.callee)
	if t.fault != nil {
		f := Finding{Into: t.fault}
		list := &c.report.Faults
		for _, g := range growing {
			if strings.HasPrefix(s.callee.name, g.prefix) && !(g.buf && s.zero) {
				f.When = g.when
				if c.capacity {
					list = &c.report.Conditional
				}
			}
		}
		c.add(list, n, s, f)
	}
	if t.exception != nil {
		c.exception(n, s, t.exception)
	}
	if t.barrier != nil {
		c.add(&c.report.Barriers, n, s, Finding{Reason: WriteBarrier, When: "while the collector marks", Into: t.barrier})
	}
}

// exception reports a call that is behind a branch not taken, as far as the
// last function of into is one for that.
func (c *checker) exception(n *node, s callSite, into []string) bool {
	for _, e := range exceptional {
		if strings.HasPrefix(into[len(into)-1], e.prefix) {
			c.add(&c.report.Conditional, n, s, Finding{Reason: e.reason, When: e.when, Into: into})
			return true
		}
	}
	return false
}

// panics reports a call that does not return: one that a correct program does
// not reach, unless the whole function always comes to it.
func (c *checker) panics(n *node, s callSite, always bool) {
	for range 16 { // through functions that do nothing but panic
		if s.callee == nil || neverReturns(s.callee.name) {
			break
		}
		n = &node{s.callee, n, s}
		s.callee.read()
		if len(s.callee.cold) == 0 {
			break
		}
		s = s.callee.cold[0]
	}
	if s.callee == nil || quiet(s.callee.name) {
		return
	}
	path := []string{s.callee.name}
	f := Finding{Reason: reasonOf(path), Into: path}
	if always && f.Reason == Panic {
		c.add(&c.report.Faults, n, s, f)
	} else {
		c.add(&c.report.Conditional, n, s, f)
	}
}

func (c *checker) add(list *[]Finding, n *node, s callSite, f Finding) {
	var sites []callSite
	for sites = []callSite{s}; n.from != nil; n = n.from {
		sites = append(sites, n.via)
	}
	for i := len(sites) - 1; i >= 0; i-- {
		f.Chain = append(f.Chain, frames(sites[i].ret)...)
	}
	if len(f.Into) > 0 { // what is inlined of the runtime belongs to it
		i := len(f.Chain)
		for i > 1 && isRuntime(f.Chain[i-1].Func, f.Chain[i-1].File) {
			i--
			f.Into = append([]string{f.Chain[i].Func}, f.Into...)
		}
		f.Chain = f.Chain[:i]
		if f.Reason == RuntimeState {
			f.Reason = reasonOf(f.Into)
		}
	}
	if key := fmt.Sprint(s.ret, f.Reason, f.When, f.Into); !c.seen[key] {
		c.seen[key] = true
		*list = append(*list, f)
	}
}

// A fate is what becomes of a call of the runtime: the shortest ways to where
// it faults, stores with a barrier, or does what is exceptional. All nil: it is safe.
type fate struct{ fault, barrier, exception []string }

// fate follows the runtime's own code, up to where it looks at g.m. Calls of
// func values in it are of functions that the compiler has made, which hash and
// compare; they are safe.
func (c *checker) fate(f *function) *fate {
	if t := c.fates[f]; t != nil {
		return t
	}
	t := &fate{}
	c.fates[f] = t
	type step struct {
		fn   *function
		from *step
	}
	path := func(s *step, last ...string) []string {
		p := last
		for ; s != nil; s = s.from {
			p = append([]string{s.fn.name}, p...)
		}
		return p
	}
	reached := map[*function]bool{f: true}
	for queue := []*step{{fn: f}}; len(queue) > 0; {
		s := queue[0]
		queue = queue[1:]
		name := s.fn.name
		switch {
		case isBarrier(name):
			if t.barrier == nil {
				t.barrier = path(s)
			}
			continue
		case isException(name):
			if t.exception == nil {
				t.exception = path(s)
			}
			continue
		case terminal(name):
			t.fault = path(s)
			return t
		}
		s.fn.read()
		if len(s.fn.gm) > 0 {
			t.fault = path(s, "g.m")
			return t
		}
		for _, call := range s.fn.calls {
			if to := call.callee; to != nil && !reached[to] {
				reached[to] = true
				queue = append(queue, &step{to, s})
			}
		}
	}
	return t
}

// A depth is how deep the stack gets under a function, its own frame included.
type depth struct {
	bytes int
	via   *callSite // the call that leads to the deepest place
	under *depth
	fn    *function // that via calls
	cycle *cycle
	busy  bool
}

type cycle struct {
	bytes  int
	frames []Frame
}

// deepest follows all calls that return; above are the calls that lead here.
func (c *checker) deepest(f *function, above []callSite) *depth {
	if d := c.depths[f]; d != nil {
		return d
	}
	f.read()
	d := &depth{bytes: f.depth, busy: true}
	c.depths[f] = d
	for _, sites := range [][]callSite{f.calls, f.taken} {
		for i := range sites {
			s := &sites[i]
			to := s.callee
			if to == nil || to == foreign || c.isExcepted(to.name) || terminal(to.name) || s.way == asValue && to.runtime {
				continue
			}
			if to.runtime && c.fate(to).fault != nil {
				continue
			}
			here := append(above[:len(above):len(above)], *s)
			if u := c.depths[to]; u != nil && u.busy {
				if d.cycle == nil && !to.runtime && s.way == direct {
					d.cycle = recursion(to, here)
				}
				continue
			}
			u := c.deepest(to, here)
			if d.cycle == nil {
				d.cycle = u.cycle
			}
			n := s.depth + u.bytes
			if !s.tail {
				n += retAddr
			}
			if n > d.bytes {
				d.bytes, d.via, d.under, d.fn = n, s, u, to
			}
		}
	}
	d.busy = false
	return d
}

// recursion describes the calls at the end of sites that lead from to to itself.
func recursion(to *function, sites []callSite) *cycle {
	i := len(sites) - 1
	for i > 0 && sites[i-1].callee != to {
		i--
	}
	y := &cycle{}
	for _, s := range sites[i:] {
		y.bytes += s.depth
		if !s.tail {
			y.bytes += retAddr
		}
		y.frames = append(y.frames, frames(s.ret)...)
	}
	return y
}

// path lists the calls from f down to the deepest place.
func (d *depth) path(f *function) []Frame {
	var fs []Frame
	for ; d.via != nil; d, f = d.under, d.fn {
		fs = append(fs, frames(d.via.ret)...)
	}
	file, line := runtime.FuncForPC(f.entry).FileLine(f.entry)
	return append(fs, Frame{f.name, file, line})
}
