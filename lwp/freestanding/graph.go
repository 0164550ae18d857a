package freestanding

import (
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// A function is one function of the program, read once.
//
// What is read is its control flow, and along it a few facts about registers
// and words of the stack frame (see value): where g is, which constants are
// addresses, and what asm.Current has returned. They decide
//
//   - which branches only goroutines take, because they follow the comparison
//     of asm.Current's result with nil: those are not followed;
//   - which blocks are doomed: every path from them ends in a panic. What they
//     call is listed apart, since a correct program does not get there;
//   - how deep the stack is at each call.
type function struct {
	entry, end uintptr
	name, file string
	runtime    bool // part of the runtime
	state      progress
	args       context               // what is known of its arguments
	variants   map[context]*function // the same function with other args
	insts      []inst

	panics bool       // the entry is doomed
	result value      // what is known of the first result
	depth  int        // of its own frame, in bytes, without the return address
	gm     []uintptr  // instructions after those that read g.m
	calls  []callSite // in blocks that are not doomed
	cold   []callSite // calls that do not return, in doomed blocks
	taken  []callSite // functions whose value is made
	some   bool       // result was set
}

// A context is what is known of the arguments of a call: constants, functions
// and method tables among them. A function is read once for each, so that it is
// clear which branch is taken for a constant, and which function is called for
// a func value, a method of an interface, or one of a type parameter.
type context [len(argRegs)]value

// maxVariants bounds how often; after that the arguments count as unknown.
const maxVariants = 12

// with returns f as it is called with args.
func (f *function) with(args context) *function {
	if f.runtime || f == foreign || args == (context{}) {
		return f
	}
	v := f.variants[args]
	if v == nil {
		if len(f.variants) == maxVariants {
			return f
		}
		if f.variants == nil {
			f.variants = map[context]*function{}
		}
		f.decode()
		v = &function{entry: f.entry, end: f.end, name: f.name, file: f.file, args: args, insts: f.insts}
		f.variants[args] = v
	}
	return v
}

// context returns what the facts say of arguments.
func (s *facts) context() (args context) {
	for i, r := range argRegs {
		switch v := s.regs[r]; v.kind {
		case onThread, onGo:
			args[i] = v
		case isKnown:
			if v.n >= -1024 && v.n < 4096 || isStatic(uintptr(v.n)) {
				args[i] = v
			}
		}
	}
	return args
}

type progress uint8

const (
	unread progress = iota
	reading
	read
)

type callSite struct {
	ret    uintptr // after the call: what stands for it in the line tables
	callee *function
	way    way
	tail   bool
	depth  int  // of the caller's frame there
	zero   bool // the first argument is 0
}

type way uint8

const (
	direct way = iota
	viaInterface
	viaFuncValue
	asValue
)

var program = struct {
	sync.Mutex
	funcs map[uintptr]*function
}{funcs: map[uintptr]*function{}}

// lookup returns the function that holds pc, unread, or nil.
func lookup(pc uintptr) *function {
	if f := program.funcs[pc]; f != nil {
		return f
	}
	rf := runtime.FuncForPC(pc)
	if rf == nil {
		return nil
	}
	entry := rf.Entry()
	f := program.funcs[entry]
	if f == nil {
		f = &function{entry: entry, name: rf.Name()}
		f.file, _ = rf.FileLine(entry)
		if fs := frames(entry + 1); len(fs) > 0 {
			f.name, f.file = fs[0].Func, fs[0].File // rf is of an inlined function where entry is in one
		}
		f.runtime = isRuntime(f.name, f.file)
		program.funcs[entry] = f
	}
	return f
}

// A value is what is known of a register or a word of the frame.
type value struct {
	kind vkind
	n    int64
}

type vkind uint8

const (
	unknown  vkind = iota
	isG            // the g register's value
	isKnown        // n
	isFrame        // the address n bytes above the caller's frame
	isLoad         // what was at n from an unknown address; n is -1 where an index was added
	onThread       // not zero on a thread of ours, zero on a goroutine
	onGo           // the reverse
)

// facts are what is known at a place in a function.
type facts struct {
	regs  [nregs]value
	frame map[int64]value // by distance from SP at the entry
	depth int             // of the stack
	test  value           // the operand last tested
	// Words from here up may be written through pointers: of the frame, which
	// ends at 0, and of the caller's, where arguments are kept.
	low [2]int64
}

func (f *facts) clone() facts {
	c := *f
	c.frame = maps.Clone(f.frame)
	return c
}

// meet reduces f to what also holds in o, and reports whether it changed.
func (f *facts) meet(o *facts) (changed bool) {
	for i := range f.regs {
		if f.regs[i] != o.regs[i] && f.regs[i].kind != unknown {
			f.regs[i], changed = value{}, true
		}
	}
	for at, v := range f.frame {
		if o.frame[at] != v {
			delete(f.frame, at)
			changed = true
		}
	}
	if f.test != o.test && f.test.kind != unknown {
		f.test, changed = value{}, true
	}
	for i := range f.low {
		if o.low[i] < f.low[i] {
			f.low[i], changed = o.low[i], true
		}
	}
	if o.depth > f.depth && f.depth+o.depth < 1<<30 {
		f.depth, changed = o.depth, true
	}
	return changed
}

type block struct {
	insts  []inst
	succ   []*block // one, for a branch two: where it is taken first
	in     facts
	seen   bool
	orphan bool // nothing is known to jump to it
	doomed bool
	closed bool // ends in a call that does not return
	calls  []callSite
	taken  []callSite
	gm     []uintptr
	cold   []callSite
	visits int
	alive  bool // control leaves the function here
}

// maxArgs bounds the arguments and results of assembly, in bytes.
const maxArgs = 256

// maxBlockVisits ends the search for a fixed point in code that is not Go's.
const maxBlockVisits = 64

// read reads the function's code, and that of what it calls where that matters.
func (f *function) read() {
	if f.state != unread {
		return
	}
	f.state = reading
	f.decode()
	blocks := f.blocks()
	if len(blocks) == 0 {
		f.state = read
		return
	}
	doom(blocks, false)
	f.flow(blocks)
	doom(blocks, true)
	f.panics = blocks[0].doomed
	f.collect(blocks)
	f.state = read
}

func (f *function) decode() {
	if f.insts != nil {
		return
	}
	f.entry, f.end = bounds(f.entry)
	text := code(f.entry, f.end)
	for pc := f.entry; pc < f.end; {
		in := decode(text[pc-f.entry:], pc)
		f.insts = append(f.insts, in)
		pc = in.next
	}
}

// blocks cuts the code at jumps, their targets, and after calls.
func (f *function) blocks() []*block {
	insts := f.insts
	leader := map[uintptr]bool{f.entry: true}
	for i := range insts {
		switch in := &insts[i]; in.flow {
		case jump, branch:
			if f.holds(in.target) {
				leader[in.target] = true
			}
			leader[in.next] = true
		case fallthru:
		default:
			leader[in.next] = true
		}
	}
	var blocks []*block
	starts := map[uintptr]*block{}
	for i := range insts {
		if i == 0 || leader[insts[i].pc] {
			b := &block{insts: insts[i : i+1]}
			blocks = append(blocks, b)
			starts[insts[i].pc] = b
		} else {
			b := blocks[len(blocks)-1]
			b.insts = b.insts[:len(b.insts)+1]
		}
	}
	hasPred := map[*block]bool{blocks[0]: true}
	link := func(b, to *block) {
		if to != nil {
			b.succ = append(b.succ, to)
			hasPred[to] = true
		}
	}
	var indirect []*block
	for i, b := range blocks {
		var next *block
		if i+1 < len(blocks) {
			next = blocks[i+1]
		}
		last := &b.insts[len(b.insts)-1]
		switch last.flow {
		case fallthru, callIndirect:
			link(b, next)
		case call:
			if to := lookup(last.target); to != nil && neverReturns(to.name) {
				b.closed = true
				if quiet(to.name) && next != nil {
					hasPred[next] = true // back to the entry, on a larger stack
				}
			} else {
				link(b, next)
			}
		case jump:
			if t := starts[last.target]; t != nil {
				link(b, t)
			} else {
				b.alive = true
			}
		case branch:
			t := starts[last.target]
			if t == nil {
				b.alive = true
				t = next
			}
			link(b, t)
			link(b, next)
		case ret:
			b.alive = true
		case jumpIndirect:
			b.alive = true
			indirect = append(indirect, b)
		case trap:
			b.closed = true
		}
	}
	for _, b := range blocks {
		if !hasPred[b] && !padding(b) {
			b.orphan = len(indirect) == 0
			for _, from := range indirect {
				from.succ = append(from.succ, b)
			}
		}
	}
	return blocks
}

func (f *function) holds(pc uintptr) bool { return f.entry <= pc && pc < f.end }

// padding tells blocks that only fill space, or that only a recovered panic enters.
func padding(b *block) bool {
	for i := range b.insts {
		in := &b.insts[i]
		switch {
		case in.flow == call:
			to := lookup(in.target)
			return to != nil && to.name == "runtime.deferreturn"
		case in.op == opBlank, in.flow == trap:
		default:
			return in.flow == ret
		}
	}
	return true
}

// flow finds the facts at the start of each block, and what happens in it.
func (f *function) flow(blocks []*block) {
	start := facts{frame: map[int64]value{}, low: [2]int64{math.MaxInt64, math.MaxInt64}}
	start.regs[regG].kind = isG
	for i, r := range argRegs {
		start.regs[r] = f.args[i]
	}
	var work []*block
	enter := func(b *block, s *facts) {
		if !b.seen {
			b.seen, b.in = true, s.clone()
		} else if !b.in.meet(s) || b.visits > maxBlockVisits {
			return
		}
		if !slices.Contains(work, b) {
			work = append(work, b)
		}
	}
	run := func() {
		for len(work) > 0 {
			b := work[0]
			work = work[1:]
			b.visits++
			s := b.in.clone()
			b.calls, b.taken, b.gm, b.cold = b.calls[:0], b.taken[:0], b.gm[:0], b.cold[:0]
			closed := false
			for i := range b.insts {
				closed = f.step(b, &b.insts[i], &s)
			}
			if closed {
				b.closed = true
				continue
			}
			last := &b.insts[len(b.insts)-1]
			for i, to := range b.succ {
				if last.flow == branch && len(b.succ) == 2 && never(s.test, last.cond, i == 0) {
					continue
				}
				enter(to, &s)
			}
		}
	}
	enter(blocks[0], &start)
	run()
	// What no known jump reaches is read as well, except behind calls that
	// turned out not to return.
	for _, b := range blocks {
		if b.orphan && !b.seen {
			lost := facts{frame: map[int64]value{}, low: [2]int64{math.MinInt64, 0}, depth: f.depth}
			lost.regs[regG].kind = isG
			enter(b, &lost)
			run()
		}
	}
}

// never tells branches that are not taken on a thread of ours: only goroutines
// take them, or the comparison is of constants.
func never(tested value, c cond, taken bool) bool {
	zero := (c == ifZero) == taken
	switch {
	case c == other:
		return false
	case tested.kind == onThread:
		return zero
	case tested.kind == onGo:
		return !zero
	case tested.kind == isKnown:
		return zero != (tested.n == 0)
	}
	return false
}

// step applies an instruction to the facts; it reports whether it does not return.
func (f *function) step(b *block, in *inst, s *facts) (closed bool) {
	if v := s.operandAddr(in.mem); v.kind == isFrame && in.store > 0 {
		f.deepen(-int(v.n))
	}
	if in.mem.kind == memory && !in.mem.index && in.mem.n == offsetM && in.mem.reg != regSP && s.regs[in.mem.reg].kind == isG && in.store == 0 {
		b.gm = append(b.gm, in.next)
	}
	switch in.flow {
	case call, callIndirect:
		return f.call(b, in, s)
	case jump:
		if !f.holds(in.target) {
			return f.call(b, in, s)
		}
		return false
	case branch:
		if !f.holds(in.target) {
			f.call(b, in, s)
		}
	case jumpIndirect:
		v := f.eval(s, in.src)
		if in.src.index || v.kind == isLoad && v.n == -1 {
			return false // a jump table
		}
		return f.call(b, in, s)
	case ret:
		f.returns(s.regs[regArg])
		return false
	}

	var v value
	known := true
	switch in.op {
	case opMove:
		v = f.eval(s, in.src)
	case opAddr:
		if in.src.kind == static {
			v = value{isKnown, in.src.n}
		} else {
			v = s.operandAddr(in.src)
			if v.kind == isFrame {
				s.low[area(v.n)] = min(s.low[area(v.n)], v.n)
			} else if isStack(in.src) {
				s.low[0] = math.MinInt64
			}
		}
	case opTest:
		s.test = value{}
		switch t := f.eval(s, in.src); {
		case t.kind == onThread || t.kind == onGo:
			if in.dst.n == 0 {
				s.test = value{kind: t.kind}
			}
		case t.kind == isKnown:
			s.test = value{isKnown, (t.n - in.dst.n) << (64 - in.bits)}
		}
	case opSetNZ, opSetZ:
		switch k := s.test.kind; {
		case k == isKnown:
			v.kind = isKnown
			if (s.test.n == 0) == (in.op == opSetZ) {
				v.n = 1
			}
		case k == onThread || k == onGo:
			if in.op == opSetZ {
				k = onThread + onGo - k
			}
			v.kind = k
		}
	case opSetSP:
		if v := s.operandAddr(operand{kind: memory, reg: in.src.reg}); v.kind == isFrame {
			s.depth = -int(v.n)
		}
		known = false
	case opAddReg:
		if a, c := s.operandAddr(operand{kind: memory, reg: in.src.reg}), s.regs[in.src.n%nregs]; c.kind == isKnown && a.kind != unknown {
			if in.src.index {
				c.n = -c.n
			}
			v = value{a.kind, a.n + c.n}
			if in.dst.reg == regSP && a.kind == isFrame {
				s.depth = -int(v.n)
			}
		}
	case opKeep:
		if o := s.regs[in.dst.reg%nregs]; o.kind == isKnown {
			v = value{isKnown, o.n&^(0xFFFF<<in.src.reg) | in.src.n<<in.src.reg}
		}
	default:
		known = false
	}
	if v.kind == isKnown && in.op == opAddr {
		f.take(b, in, s, v.n)
	}
	var v2 value
	if in.pair != noReg {
		v2 = f.evalPair(s, in)
	}
	for r := range uint8(nregs) {
		if in.kill&bit(r) != 0 {
			s.regs[r] = value{}
		}
	}
	if in.store > 0 {
		s.overwrite(in)
	}
	if known && in.op != opTest {
		s.set(in.dst, v)
		switch {
		case in.pair == noReg:
		case isReg(in.dst):
			s.set(reg(in.pair), v2)
		default:
			s.set(operand{kind: memory, reg: in.dst.reg, n: in.dst.n + 8}, v2)
		}
	}
	if in.flags && in.op != opTest {
		s.test = value{}
	}
	s.depth += in.spAdd
	f.deepen(s.depth)
	return in.flow == trap
}

// set notes that a register or a word of the frame now is v.
func (s *facts) set(o operand, v value) {
	switch {
	case isReg(o) && o.reg != regSP:
		s.regs[o.reg] = v
	case o.kind == memory && v.kind != unknown && v.kind != isLoad:
		if a := s.operandAddr(o); a.kind == isFrame && len(s.frame) < maxFrame {
			s.frame[a.n] = v
		}
	}
}

// maxFrame bounds how many words of a frame are known at a time.
const maxFrame = 256

// evalPair is eval for the second register of a pair.
func (f *function) evalPair(s *facts, in *inst) value {
	if isReg(in.dst) {
		return f.eval(s, operand{kind: memory, reg: in.src.reg, n: in.src.n + 8})
	}
	if in.pair == regSP {
		return value{kind: isKnown} // the zero register
	}
	return s.regs[in.pair]
}

func (f *function) deepen(depth int) {
	if depth > f.depth && depth < 1<<30 {
		f.depth = depth
	}
}

// overwrite forgets the words that a store changes.
func (s *facts) overwrite(in *inst) {
	a := s.operandAddr(operand{kind: in.mem.kind, reg: in.mem.reg, n: in.mem.n})
	if a.kind != isFrame {
		s.smudge()
		return
	}
	for at := range s.frame {
		if at+8 > a.n && (in.mem.index || at < a.n+int64(in.store)) {
			delete(s.frame, at)
		}
	}
}

// smudge forgets the numbers that may be written through a pointer. What else is
// known of such words is kept: nobody writes over a result of asm.Current, and a
// func value that takes the place of another is checked as well (take).
func (s *facts) smudge() {
	for at, v := range s.frame {
		if at >= s.low[area(at)] && v.kind == isKnown && funcValue(uintptr(v.n)) == 0 {
			delete(s.frame, at)
		}
	}
}

// area returns 0 for words of the function's frame, 1 for those of the caller's.
func area(at int64) int {
	if at < 0 {
		return 0
	}
	return 1
}

// operandAddr returns the address of a memory operand.
func (s *facts) operandAddr(o operand) value {
	switch {
	case o.kind != memory || o.index:
		return value{}
	case o.reg == regSP:
		return value{isFrame, o.n - int64(s.depth)}
	}
	switch v := s.regs[o.reg]; v.kind {
	case isFrame, isKnown:
		return value{v.kind, v.n + o.n}
	case isG, onThread, onGo:
		if o.n == 0 {
			return v
		}
	}
	return value{}
}

// eval returns what is known of an operand.
func (f *function) eval(s *facts, o operand) value {
	switch o.kind {
	case register:
		if o.reg == regSP {
			return s.operandAddr(operand{kind: memory, reg: regSP})
		}
		return s.regs[o.reg]
	case constant:
		return value{isKnown, o.n}
	case tls:
		if o.n < 0 || o.index {
			return value{kind: isG}
		}
		return value{}
	case static:
		return load(o.n)
	case memory:
		if o.index {
			return value{isLoad, -1}
		}
		switch a := s.operandAddr(o); {
		case o.reg != regSP && s.regs[o.reg].kind == isG:
			return inG(o.n)
		case a.kind == isFrame:
			return s.frame[a.n]
		case a.kind == isKnown:
			return load(a.n)
		}
		return value{isLoad, o.n}
	}
	return value{}
}

// inG returns the word at n in the g of a thread: it has stack bounds, and is
// zero otherwise (asm.G).
func inG(n int64) value {
	if n == offsetM || n < 32 || n >= 512 {
		return value{isLoad, 0}
	}
	return value{kind: isKnown}
}

// load reads static data that does not change.
func load(addr int64) value {
	if w, constant, ok := word(uintptr(addr)); ok && constant {
		return value{isKnown, int64(w)}
	}
	return value{isLoad, 0}
}

// take notes that the address of a function or of a static closure was computed.
func (f *function) take(b *block, in *inst, s *facts, addr int64) {
	if addr < 4096 || f.holds(uintptr(addr)) {
		return
	}
	if entry := funcValue(uintptr(addr)); entry != 0 {
		b.taken = append(b.taken, callSite{ret: in.next, callee: lookup(entry), way: asValue, depth: f.depth})
	}
}

// call notes a call, or a jump out of the function, and its effect on the
// facts. It reports whether it does not return.
func (f *function) call(b *block, in *inst, s *facts) (closed bool) {
	c := callSite{ret: in.next, depth: s.depth}
	if in.flow == jump || in.flow == jumpIndirect || in.flow == branch {
		c.tail = true
		c.ret = in.pc + 1
	}
	target := in.target
	if in.src.kind != none {
		switch v := f.eval(s, in.src); {
		case v.kind == isKnown:
			target = uintptr(v.n)
		case v.kind == isLoad && v.n > 0:
			c.way = viaInterface
		default:
			c.way = viaFuncValue
		}
	}
	if c.way == direct {
		c.callee = lookup(target)
		if c.callee == nil {
			c.callee = foreign
		}
	}
	c.zero = s.regs[regArg] == value{kind: isKnown}

	if c.callee != nil {
		c.callee = c.callee.with(s.context())
	}
	var result value
	if to := c.callee; to != nil {
		if neverReturns(to.name) {
			closed = true
		} else if !f.runtime && !b.doomed && !terminal(to.name) {
			to.read()
			result = to.result
			closed = to.panics
		}
		if isThreadTest(to.name) {
			result = value{kind: onThread}
		}
	}
	if closed {
		b.cold = append(b.cold, c)
	} else {
		b.calls = append(b.calls, c)
	}
	if c.tail {
		f.returns(result)
	}
	g := s.regs[regG]
	clear(s.regs[:])
	s.regs[regG] = g
	s.regs[regArg] = result
	s.test = value{}
	s.smudge()
	if c.callee == nil || strings.HasSuffix(c.callee.file, ".s") {
		// Assembly takes arguments and leaves results at SP.
		sp := -int64(s.depth)
		for at := range s.frame {
			if sp <= at && at < sp+maxArgs {
				delete(s.frame, at)
			}
		}
		if result.kind != unknown {
			s.frame[sp+result0] = result
		}
	}
	return closed
}

// returns merges what is known of a result at one of the ways out.
func (f *function) returns(v value) {
	if v.kind != onThread && v.kind != onGo && v.kind != isKnown {
		v = value{}
	}
	if !f.some {
		f.result, f.some = v, true
	} else if f.result != v {
		f.result = value{}
	}
}

// doom finds the blocks from which every path ends in a call that does not
// return, as a least fixed point: a loop without end is not doomed. Before
// flow has run, all blocks count.
func doom(blocks []*block, flown bool) {
	for changed := true; changed; {
		changed = false
		for i := len(blocks) - 1; i >= 0; i-- {
			b := blocks[i]
			if b.doomed || flown && !b.seen || b.alive && !b.closed {
				continue
			}
			doomed := b.closed
			if !doomed {
				for _, to := range b.succ {
					if !flown || to.seen {
						doomed = to.doomed
						if !doomed {
							break
						}
					}
				}
			}
			if doomed {
				b.doomed, changed = true, true
			}
		}
	}
}

func (f *function) collect(blocks []*block) {
	for _, b := range blocks {
		if !b.seen {
			continue
		}
		if b.doomed && !f.panics {
			f.cold = append(f.cold, b.cold...)
			continue
		}
		f.calls = append(f.calls, b.calls...)
		f.cold = append(f.cold, b.cold...)
		f.taken = append(f.taken, b.taken...)
		f.gm = append(f.gm, b.gm...)
	}
}

// foreign stands for code that the runtime has no table of: C.
var foreign = &function{name: "C code", state: read}
