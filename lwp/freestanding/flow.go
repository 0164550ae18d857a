package freestanding

import (
	"math"
	"slices"
	"strings"
)

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

func (f *function) deepen(depth int) {
	if depth > f.depth && depth < 1<<30 {
		f.depth = depth
	}
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
