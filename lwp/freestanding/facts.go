package freestanding

import "maps"

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

// load reads static data that does not change: what the linker has put where
// nothing writes, and the func values by which package asm calls its assembly.
func load(addr int64) value {
	if w, constant, ok := word(uintptr(addr)); ok && constant {
		return value{isKnown, int64(w)}
	}
	if w, ok := variable(uintptr(addr)); ok && isAssembly(w) {
		return value{isKnown, int64(w)}
	}
	return value{isLoad, 0}
}
