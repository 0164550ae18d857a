package sched

import (
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// Config says how a scheduler is to be. The zero Config is the default.
type Config struct {
	// Workers is how many threads run fibers; 0 means as many as there are
	// CPUs that this process may use.
	Workers int

	// StackSize is that of fibers whose Attr names none, in bytes, rounded up to
	// a power of two; 0 means DefaultStackSize. Stacks do not grow.
	StackSize int

	// Name is the name of the workers in /proc, at most 12 bytes; the number of
	// the worker is added to it.
	Name string

	// CPUs, if not empty, is the set that worker i takes its CPU from: the i-th,
	// and from the first again after the last.
	CPUs unix.CPUSet
}

// maxWorkers is how many workers a scheduler can have.
const maxWorkers = 1024

// A Scheduler runs fibers on threads of its own, its workers. It must be closed.
type Scheduler struct {
	core   *core
	mu     sync.Mutex   // one Close at a time
	life   sync.RWMutex // read-held where core is used, held to close
	closed bool         // guarded by life
}

// use returns the core, which stays in place until unuse, or nil after Close.
func (s *Scheduler) use() *core {
	if s == nil {
		return nil
	}
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return nil
	}
	return s.core
}

func (s *Scheduler) unuse() { s.life.RUnlock() }

// workerStack is the stack of a worker's thread, in bytes: what it runs there
// is this package.
const workerStack = 64 << 10

// start is what has to be done once in a program.
var start = sync.OnceValue(func() error {
	layout, why := asm.CheckRuntime()
	if why != "" {
		return &lwp.UnsupportedError{Release: runtime.Version(), Why: why}
	}
	guard = layout.Guard
	if err := reserve(); err != nil {
		return err
	}
	fences = asm.InitFences()
	asm.InitClock()
	return nil
})

var (
	fences bool
	guard  uintptr // bytes that compiled code keeps free at the low end of a stack
)

// New makes a scheduler and starts its workers.
//
// Context: goroutine.
// Errors: ErrConfig, ErrStackSize, ErrHosted; those of lwp.Start; *Error.
func New(config Config) (*Scheduler, error) {
	if asm.Current() != nil {
		return nil, ErrHosted
	}
	switch {
	case config.Workers < 0 || config.Workers > maxWorkers, len(config.Name) > 12:
		return nil, ErrConfig
	case config.StackSize != 0 && (config.StackSize < MinStackSize || config.StackSize > MaxStackSize):
		return nil, ErrStackSize
	}
	if err := lwp.Supported(); err != nil {
		return nil, err
	}
	if err := start(); err != nil {
		return nil, err
	}
	cpus := runtime.NumCPU()
	n := config.Workers
	if n == 0 {
		n = cpus
	}
	size := config.StackSize
	if size == 0 {
		size = DefaultStackSize
	}
	c, err := newCore(n)
	if err != nil {
		return nil, err
	}
	c.class = classOf(size)
	for _, w := range c.workers {
		w.class, w.batch = c.class, batchOf(c.class)
		w.tick, w.interval = pollInterval, pollInterval // also for Stats, before it runs
	}
	c.spins = cpus > 1
	s := &Scheduler{core: c}
	for i, w := range c.workers {
		attr := lwp.Attr{
			Name: workerName(config.Name, i+1), StackSize: workerStack, CPUs: cpuOf(config.CPUs, i),
			FaultPolicy: lwp.CrashOnFault, // a fault outside of every fiber leaves the scheduler in pieces
		}
		if w.thread, err = lwp.StartAttr((*worker).main, w, attr); err != nil {
			s.stop(i)
			return nil, err
		}
	}
	// A worker that has not come to its loop yet would not count as idle.
	return s, nil
}

func workerName(name string, i int) string {
	if name == "" {
		name = "sched"
	}
	var b [15]byte
	n := copy(b[:], name)
	b[n] = '/'
	digits := len(b)
	for ; i > 0 && digits > n+1; i /= 10 {
		digits--
		b[digits] = byte('0' + i%10)
	}
	n += 1 + copy(b[n+1:], b[digits:])
	return string(b[:n])
}

// cpuOf returns the i-th CPU of a set, counted round and round; nothing of an empty one.
func cpuOf(set unix.CPUSet, i int) (one unix.CPUSet) {
	n := set.Count()
	if n == 0 {
		return one
	}
	i %= n
	for cpu := 0; ; cpu++ {
		if set.IsSet(cpu) {
			if i == 0 {
				one.Set(cpu)
				return one
			}
			i--
		}
	}
}

// memory of a core and its workers.
type memory struct {
	core
	room [maxWorkers]*worker
}

// cores are those of closed schedulers, to be used again.
var cores struct {
	mu   sync.Mutex
	free []*core
}

func newCore(n int) (*core, error) {
	c, err := takeCore()
	if err != nil {
		return nil, err
	}
	c.workers = (*memory)(unsafe.Pointer(c)).room[:n]
	if !fences {
		c.unfenced = true
		c.hungry.Store(1)
	}
	ws, err := mmap(uintptr(n) * unsafe.Sizeof(worker{}))
	if err != nil {
		c.workers = nil
		c.free()
		return nil, err
	}
	c.ws, c.made = ws, n
	for i := range c.workers {
		w := (*worker)(unsafe.Add(ws, uintptr(i)*unsafe.Sizeof(worker{})))
		c.workers[i] = w
		w.core, w.id, w.shared = c, i, uintptr(unsafe.Pointer(&c.hungry))
		if c.unfenced {
			w.claimed = unfenced
		}
		w.random = uint64(i+1) * 0x9e3779b97f4a7c15
		b, err := newBlock()
		if err != nil {
			c.workers = c.workers[:i]
			c.free()
			return nil, err
		}
		w.loop = (*fiber)(b)
		w.loopLink, w.base, w.links = w.loop.link(), region.base, uint32(region.loops-firstLink)
		w.loop.next, w.loop.prev = w.loop.ref(), w.loopLink
		w.loop.serial, w.loop.local, w.loop.flags = math.MaxUint64, uintptr(unsafe.Pointer(w)), isLoop
		w.current, w.top = uintptr(b), uintptr(b)
	}
	return c, nil
}

func takeCore() (*core, error) {
	cores.mu.Lock()
	defer cores.mu.Unlock()
	if n := len(cores.free); n > 0 {
		c := cores.free[n-1]
		cores.free = cores.free[:n-1]
		return c, nil
	}
	p, err := mmap(unsafe.Sizeof(memory{}))
	return (*core)(p), err
}

// abandon frees what fibers hold that will not go on, or were not joined.
func (c *core) abandon() {
	drop := func(k *chunk) {
		for i := range k.used {
			f := k.fiberAt(i)
			if f.flags&hasRoot != 0 {
				endRoot(f.root)
			}
			if f.flags&(hasFault|hasKept) != 0 {
				lwp.DropFault((*lwp.Fault)(pointer(f.fault)))
			}
			if f.flags&hasLocals != 0 {
				if l := (*locals)(pointer(f.local)); l.fault != 0 {
					lwp.DropFault((*lwp.Fault)(pointer(l.fault)))
					l.fault = 0
				}
				(*locals)(pointer(f.local)).Reset()
				freeLocalsFn(pointer(f.local))
			}
		}
	}
	for class := range c.pools {
		c.pools[class].each(drop)
	}
}

// free frees everything; no worker runs. Who is just about to look at a fiber
// from outside is waited for.
func (c *core) free() {
	for class := range c.pools {
		c.pools[class].each(func(k *chunk) { atomic.OrUintptr(&k.owner, closedOwner) })
	}
	for c.users.Load() != 0 {
		time.Sleep(10 * time.Microsecond)
	}
	for class := range c.pools {
		c.pools[class].each(func(k *chunk) {
			for i := range k.used {
				k.fiberAt(i).abandon()
			}
		})
	}
	c.timers.drop()
	c.abandon() // not before: a Join may have been about to take a fault
	for class := range c.pools {
		c.pools[class].drop()
	}
	for _, w := range c.workers {
		freeBlock(unsafe.Pointer(w.loop))
	}
	c.mu.Lock() // who has stopped a Timer of c may be about to settle it
	if c.made > 0 {
		munmap(c.ws, uintptr(c.made)*unsafe.Sizeof(worker{}))
	}
	c.reset()
	c.mu.Unlock()
	cores.mu.Lock()
	cores.free = append(cores.free, c)
	cores.mu.Unlock()
}

// stop ends the first n workers and frees the scheduler.
func (s *Scheduler) stop(n int) {
	s.end(n)
	s.free()
}

// end ends the first n workers.
func (s *Scheduler) end(n int) {
	c := s.core
	c.mu.Lock()
	c.stopped = true
	atomic.StoreUint32(&c.closing, 1)
	c.settle()
	c.mu.Unlock()
	for _, w := range c.workers[:n] {
		c.mu.Lock()
		c.unpark(w)
		c.mu.Unlock()
		w.rouse()
	}
	for _, w := range c.workers[:n] {
		w.thread.Join()
	}
	c.helpers.stop()
}

// free frees everything when no worker runs any more.
func (s *Scheduler) free() {
	s.life.Lock()
	s.closed = true
	s.life.Unlock()
	s.core.free()
	sweepRoots()
}

// Wait waits until every fiber has ended.
//
// Context: goroutine.
// Errors: ErrHosted, ErrClosed; a *DeadlockError if nothing can run any more.
func (s *Scheduler) Wait() error { return s.wait(patience{}) }

// WaitFor is Wait with a bound.
//
// Errors: also ErrTimeout.
func (s *Scheduler) WaitFor(d time.Duration) error { return s.wait(patience{d: futex.After(d)}) }

func (s *Scheduler) wait(p patience) error {
	if asm.Current() != nil {
		return ErrHosted
	}
	c := s.use()
	if c == nil {
		return ErrClosed
	}
	c.users.Add(1) // not for as long as it takes under life, which Close wants
	s.unuse()
	defer c.letGo()
	b, err := newBlock()
	if err != nil {
		return err
	}
	me := (*waiter)(b)
	me.all = true
	what := c.await(me, p)
	freeBlock(b)
	switch what {
	case late:
		return ErrTimeout
	case stuck:
		return c.report()
	}
	return nil
}

// Close waits until every fiber has ended, then ends the workers and frees all
// memory. From its beginning on, no fiber can be spawned. Fibers that have ended
// and were not joined are forgotten.
//
// If nothing can run any more, the fibers that are left end where they are,
// deferred calls and destructors not run, and Close returns what they were
// waiting for.
//
// Context: goroutine.
// Errors: ErrHosted; ErrClosed on a second call; *DeadlockError.
func (s *Scheduler) Close() error {
	if asm.Current() != nil {
		return ErrHosted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.refuse() {
		return ErrClosed
	}
	err := s.wait(patience{})
	s.stop(len(s.core.workers))
	return err
}

// Shutdown is Close that gives up after d: the error then is a *LeftError,
// which lists the fibers that have not ended. They go on; Shutdown and Close
// can be called again.
//
// Errors: as Close, and *LeftError.
func (s *Scheduler) Shutdown(d time.Duration) error {
	if asm.Current() != nil {
		return ErrHosted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.refuse() {
		return ErrClosed
	}
	err := s.wait(patience{d: futex.After(d)})
	if err == ErrTimeout {
		return &LeftError{s.core.fibers(true)}
	}
	s.stop(len(s.core.workers))
	return err
}

// refuse has no fiber spawned any more, and reports false after Close.
func (s *Scheduler) refuse() bool {
	c := s.use()
	if c == nil {
		return false
	}
	c.mu.Lock()
	atomic.StoreUint32(&c.closing, 1)
	c.mu.Unlock()
	s.unuse()
	return true
}

// Hold says that a goroutine or thread is going to unpark or spawn fibers: as
// long as there are more Holds than Releases, fibers that all wait are not
// taken for a deadlock.
//
// Context: goroutine.
func (s *Scheduler) Hold() { s.hold(1) }

// Release ends a Hold.
//
// Context: as Hold.
func (s *Scheduler) Release() { s.hold(-1) }

func (s *Scheduler) hold(n int) {
	c := s.use()
	if c == nil {
		return
	}
	c.mu.Lock()
	c.holds += n
	c.settle()
	c.mu.Unlock()
	s.unuse()
}

// Trim gives memory that no fiber uses back to the kernel, and returns how
// many bytes of slots that was. A scheduler does so by itself after it has been
// idle for a second.
//
// Context: goroutine.
func (s *Scheduler) Trim() (bytes int) {
	if c := s.use(); c != nil {
		bytes = c.trim()
		s.unuse()
	}
	return bytes
}

// Workers returns how many workers s has; 0 after Close.
func (s *Scheduler) Workers() (n int) {
	if c := s.use(); c != nil {
		n = len(c.workers)
		s.unuse()
	}
	return n
}

// Dump writes what every fiber of s does: its state, what it waits for, since
// when, its worker, how much of its stack it or a predecessor in its slot has
// used, and where it stands.
//
// Context: goroutine. The scheduler goes on meanwhile; a fiber that runs is
// listed without a trace.
// Errors: ErrClosed; those of w.
func (s *Scheduler) Dump(w io.Writer) error {
	c := s.use()
	if c == nil {
		return ErrClosed
	}
	fibers := c.fibers(false)
	s.unuse()
	for _, f := range fibers {
		if _, err := io.WriteString(w, f.String()); err != nil {
			return err
		}
	}
	return nil
}
