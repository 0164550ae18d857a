// Command priorityinversion has three real-time threads on one CPU: one of low
// priority holds a lock that one of high priority wants, and one of middle
// priority, which wants nothing but the CPU, decides how long that takes. It
// does so with a plain mutex, and with one that lends priority.
package main

import (
	"errors"
	"fmt"
	"log"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// How long each works, in time that it has the CPU. All of it is far less than
// what Linux lets real-time threads have of a second (sched_rt_runtime_us, 950
// ms), so that nobody is throttled, and each ends by itself.
const (
	lowWork    = 4 * time.Millisecond // with the lock
	middleWork = 20 * time.Millisecond
	highWork   = 2 * time.Millisecond // with the lock
	patience   = 5 * time.Second      // how long to wait for what must come
)

const (
	low = iota
	middle
	high
)

// With SCHED_FIFO the higher one runs until it sleeps.
var (
	names      = [...]string{"low", "middle", "high"}
	priorities = [...]int{10, 20, 30}
)

// What happens to a thread.
const (
	wants = iota
	holds
	unlocks
	begins // to work without a lock
	done
	stops // it has not had the CPU from here
	goesOn
)

var sayings = [...]string{wants: "wants the lock", holds: "gets the lock", unlocks: "gives the lock up", begins: "begins to work", done: "is done"}

type moment struct {
	at        int64 // futex.Monotonic
	who, what int
}

// A stage is what the three share. They write down what happens to them where
// there is room: they have no Go runtime to allocate any. No lock is needed for
// that: they run on one CPU, and the more urgent one comes in only when it is
// woken or the lock is given up, never in the middle of a note.
type stage struct {
	inherit bool
	plain   futex.Mutex
	pi      futex.PIMutex

	wakeMiddle, wakeHigh futex.Event

	moments [64]moment
	n       int
	failed  bool
}

func (s *stage) note(at int64, who, what int) {
	if s.n == len(s.moments) {
		s.failed = true
		return
	}
	s.moments[s.n] = moment{at, who, what}
	s.n++
}

func (s *stage) lock(who int) {
	s.note(futex.Monotonic(), who, wants)
	if !s.inherit {
		s.plain.Lock()
	} else if s.pi.Lock() != nil {
		s.failed = true
	}
	s.note(futex.Monotonic(), who, holds)
}

func (s *stage) unlock(who int) {
	s.note(futex.Monotonic(), who, unlocks) // the next one can run before the call returns
	if s.inherit {
		s.pi.Unlock()
	} else {
		s.plain.Unlock()
	}
}

// work keeps the CPU until the calling thread has had it for d, and notes when
// it has been without since last.
func (s *stage) work(who int, d time.Duration, last int64) {
	const gap = int64(500 * time.Microsecond)
	for end := cpuTime() + int64(d); cpuTime() < end; {
		now := futex.Monotonic()
		if now-last > gap && s.n < len(s.moments)/2 {
			s.note(last, who, stops)
			s.note(now, who, goesOn)
		}
		last = now
		for range 20 {
			asm.Relax()
		}
	}
}

// cpuTime returns how long the calling thread has had a CPU, in nanoseconds.
func cpuTime() int64 {
	var ts unix.Timespec
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}

func lowThread(s *stage) {
	s.lock(low)
	s.wakeHigh.Set() // it runs at once, and stops at the lock
	now := futex.Monotonic()
	s.wakeMiddle.Set()
	s.work(low, lowWork, now)
	s.unlock(low)
	s.note(futex.Monotonic(), low, done)
}

func middleThread(s *stage) {
	if !s.wakeMiddle.WaitFor(patience) {
		s.failed = true
	}
	s.note(futex.Monotonic(), middle, begins)
	s.work(middle, middleWork, futex.Monotonic())
	s.note(futex.Monotonic(), middle, done)
}

func highThread(s *stage) {
	if !s.wakeHigh.WaitFor(patience) {
		s.failed = true
	}
	s.lock(high)
	s.work(high, highWork, futex.Monotonic())
	s.unlock(high)
	s.note(futex.Monotonic(), high, done)
}

var parts = [...]func(*stage){low: lowThread, middle: middleThread, high: highThread}

// play starts the three, the one that begins last, and returns when they have ended.
func play(s *stage, cpus unix.CPUSet) error {
	var threads []lwp.Thread
	var failed error
	for _, who := range []int{high, middle, low} {
		t, err := lwp.StartAttr(parts[who], s, lwp.Attr{
			Name: names[who], Policy: lwp.PolicyFIFO, Priority: priorities[who], CPUs: cpus,
		})
		if err != nil {
			failed = err
			s.wakeHigh.Set() // nobody waits for one who does not come
			s.wakeMiddle.Set()
			break
		}
		threads = append(threads, t)
		time.Sleep(10 * time.Millisecond) // it waits by now; were it late, it would say so
	}
	for _, t := range threads {
		failed = errors.Join(failed, t.Join())
	}
	if failed == nil && s.failed {
		failed = errors.New("a thread waited in vain, or had no room for its notes")
	}
	return failed
}

// show prints what has happened, and returns how long high waited for the lock.
func show(s *stage) (waited time.Duration) {
	moments := s.moments[:s.n]
	ms := func(at int64) float64 { return float64(at-moments[0].at) / 1e6 }
	var asked int64
	for _, m := range moments {
		if m.what < len(sayings) && sayings[m.what] != "" {
			fmt.Printf("   %6.2f ms  %-6s %s\n", ms(m.at), names[m.who], sayings[m.what])
		}
		if m.who == high && m.what == wants {
			asked = m.at
		}
		if m.who == high && m.what == holds {
			waited = time.Duration(m.at - asked)
		}
	}

	const column = 0.5 // ms
	columns := 0
	for _, m := range moments {
		columns = max(columns, int(ms(m.at)/column)+1)
	}
	columns = min(columns, 100)
	fmt.Printf("\n   A column is %.1f ms: # runs with the lock, = runs without, ? waits for the lock, . does not run\n", column)
	for who := high; who >= low; who-- {
		line := []byte(strings.Repeat(" ", columns))
		// The state from each moment to the next one of the same thread.
		state, was, from := byte(' '), byte(' '), 0
		for _, m := range moments {
			if m.who != who {
				continue
			}
			to := min(int(ms(m.at)/column), columns-1)
			for i := from; i < to; i++ {
				line[i] = state
			}
			from = to
			switch m.what {
			case wants:
				state = '?'
			case holds:
				state = '#'
			case begins:
				state = '='
			case unlocks, done:
				state = ' '
			case stops:
				state, was = '.', state
			case goesOn:
				state = was
			}
			if state != ' ' {
				line[to] = state
			}
		}
		fmt.Printf("   %-6s |%s|\n", names[who], line)
	}
	return waited
}

// oneCPU returns the last CPU that this process may use.
func oneCPU() (cpu int, set unix.CPUSet, err error) {
	var may unix.CPUSet
	if err = unix.SchedGetaffinity(0, &may); err != nil {
		return 0, set, err
	}
	for i := range 8 * len(may) * int(unsafe.Sizeof(may[0])) {
		if may.IsSet(i) {
			cpu = i
		}
	}
	set.Set(cpu)
	return cpu, set, nil
}

func run() error {
	cpu, set, err := oneCPU()
	if err != nil {
		return err
	}
	fmt.Printf("Three SCHED_FIFO threads on CPU %d: low takes the lock, wakes high and middle, and works\n"+
		"%v with the lock. high, once it has the lock, works %v; middle wants no lock and works %v.\n",
		cpu, lowWork, highWork, middleWork)

	fmt.Println("\n1. With a futex.Mutex")
	s := &stage{}
	if err := play(s, set); err != nil {
		var refused *lwp.Error
		if errors.As(err, &refused) && refused.Op == "sched_setscheduler" && refused.Errno == syscall.EPERM {
			fmt.Print("\n   This program needs the right to make real-time threads: to be root, to have\n" +
				"   CAP_SYS_NICE, or a limit for it (ulimit -r) of 30 or more.\n")
		}
		return err
	}
	plain := show(s)
	fmt.Printf("\n   high has waited %.2f ms: for low, which could not run, because middle did.\n"+
		"   Nothing bounds that but middle's good will. It is called priority inversion.\n", plain.Seconds()*1e3)

	fmt.Println("\n2. With a futex.PIMutex")
	s = &stage{inherit: true}
	if err := play(s, set); err != nil {
		return err
	}
	lent := show(s)
	fmt.Printf("\n   high has waited %.2f ms: while it waits, low runs at high's priority, and middle\n"+
		"   cannot get in between. The wait is as long as the lock is held.\n", lent.Seconds()*1e3)
	return nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal("priorityinversion: ", err)
	}
}
