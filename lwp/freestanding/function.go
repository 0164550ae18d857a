package freestanding

import (
	"cmp"
	"runtime"
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

// maxVariants bounds how often; after that numbers count as unknown, and in the
// end all arguments.
const maxVariants = 12

// with returns f as it is called with args.
func (f *function) with(args context) *function {
	if f.runtime || f == foreign || args == (context{}) {
		return f
	}
	v := f.variants[args]
	if v == nil {
		if n := len(f.variants); n >= 2*maxVariants {
			return f
		} else if n >= maxVariants {
			args = args.addresses()
			if v := f.variants[args]; v != nil || args == (context{}) {
				return cmp.Or(v, f)
			}
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

// program holds what one Check has read. It is dropped when the next begins: a
// report shall not depend on which variants others have asked for, and all
// together is large.
var program struct {
	sync.Mutex
	funcs map[uintptr]*function
}

func reset() { program.funcs = map[uintptr]*function{} }

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

// addresses returns a without its numbers.
func (a context) addresses() context {
	for i := range a {
		if a[i].kind == isKnown && !isStatic(uintptr(a[i].n)) {
			a[i] = value{}
		}
	}
	return a
}

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
