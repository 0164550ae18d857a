package lwp

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// The host is the goroutines, servers, that do for threads and green threads
// what takes the Go runtime: run a Handler, send on a channel.
//
// An idle server sleeps on a futex word of its own, with an M. What is asked
// for is handed to one that is idle, the last to become so, whose memory is in
// the cache. It does the work itself: nobody hands it on. A thread cannot start a
// goroutine, so somebody must always be about to look: either a server is idle,
// or one is on its way to look at the queues. The one who was the last idle server
// therefore starts another before it runs a body, which may take for ever.
//
//	idle servers   a call comes                            what it costs
//	2              one takes it, one stays                 a wake
//	1              it takes it, and starts another first   a wake, and a goroutine
//	0              it is queued; who comes next takes it   a goroutine, if none is on its way
//
// maxIdle servers stay idle, and more end: that many Ms are tied up, for the
// whole process, whatever the number of handlers, of calls under way (a body that
// waits in the runtime's manner holds no M) and of those who wait for them.
//
// Rejected: an eventfd in the runtime's poller, which ties up no M. A wake then takes
// a write(2), epoll_wait of whichever M is polling and a read(2), and waits for the
// runtime's monitor, 10 ms, where every P is busy.
var host struct {
	once   sync.Once
	mu     futex.Mutex
	idle   uintptr // *server, linked by next; the last to become idle first
	nidle  int
	coming int   // servers that have been started and have not looked yet
	calls  queue // of *call
	quick  queue // of *Parker with byGate and of *threadEnd: no body to run
}

const maxIdle = 2

// A queue holds Parkers, or what begins with one, oldest first.
type queue struct{ first, last uintptr }

func (q *queue) push(p *Parker) {
	p.next = 0
	if q.last == 0 {
		q.first = uintptr(unsafe.Pointer(p))
	} else {
		(*Parker)(pointer(q.last)).next = uintptr(unsafe.Pointer(p))
	}
	q.last = uintptr(unsafe.Pointer(p))
}

// pop takes the oldest off q, or returns nil.
func (q *queue) pop() *Parker {
	p := (*Parker)(pointer(q.first))
	if p != nil {
		if q.first = p.next; q.first == 0 {
			q.last = 0
		}
	}
	return p
}

type server struct {
	word  uint32 // futex word
	alone uint32 // nobody else was idle when it was taken
	call  uintptr
	next  uintptr
}

// Values of server.word.
const (
	serverSpins = iota
	serverSleeps
	serverCalled
)

// startHost starts the servers, once.
//
// Context: goroutine.
func startHost() {
	host.once.Do(func() {
		for range maxIdle {
			go serve(false)
		}
	})
}

// takeIdle takes a server off the list, or returns nil; under host.mu. The
// caller rouses it after that.
func takeIdle() *server {
	s := (*server)(pointer(host.idle))
	if s != nil {
		host.idle = s.next
		host.nidle--
		s.alone = 0
		if s.call = 0; nobodyComes() {
			s.alone = 1
		}
	}
	return s
}

// nobodyComes says that no server is idle or on its way; then the caller, or
// the server that it rouses, starts one, which counts as on its way from now on.
func nobodyComes() bool {
	if host.nidle > 0 || host.coming > 0 {
		return false
	}
	host.coming++
	return true
}

func (s *server) rouse() {
	if s != nil && atomic.SwapUint32(&s.word, serverCalled) == serverSleeps {
		futex.Wake(&s.word, 1)
	}
}

// submit has a server run c. It is called where there is room.
func submit(c *call) {
	host.mu.Lock()
	s := takeIdle()
	if s != nil {
		s.call = uintptr(unsafe.Pointer(c))
	} else {
		host.calls.push(&c.Parker)
	}
	host.mu.Unlock()
	s.rouse()
}

// signalGate is Signal of a goroutine that waits in a channel operation.
func (p *Parker) signalGate() {
	if asm.Current() == nil {
		openGate(p)
		return
	}
	onStack(postFn, pointer(uintptr(unsafe.Pointer(p))))
}

// postFn has a server do what its argument, a *Parker, is about.
var postFn = func(p unsafe.Pointer) {
	host.mu.Lock()
	host.quick.push((*Parker)(p))
	s := takeIdle()
	host.mu.Unlock()
	s.rouse()
}

// serve is the life of a server; one that was started to look at the queues is
// counted as coming.
func serve(coming bool) {
	s := (*server)(newBlock(unsafe.Sizeof(server{})))
	ended := false
	defer func() {
		freeBlock(unsafe.Pointer(s), unsafe.Sizeof(server{}))
		if !ended { // by runtime.Goexit in a body
			go serve(false)
		}
	}()
	for {
		host.mu.Lock()
		if coming {
			host.coming--
			coming = false
		}
		quick, c, alone := host.quick, (*call)(nil), false
		host.quick = queue{}
		idle := false
		if quick.first == 0 {
			c = (*call)(unsafe.Pointer(host.calls.pop()))
			if idle = c == nil; !idle {
				alone = nobodyComes()
			}
		}
		if idle {
			if host.nidle >= maxIdle {
				host.mu.Unlock()
				ended = true
				return
			}
			atomic.StoreUint32(&s.word, serverSpins)
			s.next, host.idle = host.idle, uintptr(unsafe.Pointer(s))
			host.nidle++
		}
		host.mu.Unlock()
		for p := quick.pop(); p != nil; p = quick.pop() {
			if p.kind == byGate {
				openGate(p)
			} else {
				(*threadEnd)(unsafe.Pointer(p)).announce()
			}
		}
		if idle {
			s.sleep()
			c, alone = (*call)(pointer(s.call)), s.alone != 0
		}
		if alone { // also without a call: it has been counted
			go serve(true)
		}
		for c != nil {
			c = c.run()
		}
	}
}

// sleep waits until s is taken off the list of idle servers.
func (s *server) sleep() {
	if spin(&s.word, serverCalled) {
		return
	}
	atomic.CompareAndSwapUint32(&s.word, serverSpins, serverSleeps)
	for atomic.LoadUint32(&s.word) == serverSleeps {
		futex.Wait(&s.word, serverSleeps)
	}
}

// gates are channels that goroutines wait at for what threads do. A gate has a
// number, which can lie where threads find it, and is used again.
var gates struct {
	mu   sync.Mutex
	all  []chan struct{} // number 0 is none
	free []uint32
}

// initGate readies p, which lies off the Go heap, for a wait at the channel that
// it returns: one value comes for the signal.
//
// Context: goroutine.
func (p *Parker) initGate() chan struct{} {
	startHost()
	gates.mu.Lock()
	defer gates.mu.Unlock()
	if len(gates.all) == 0 {
		gates.all = append(gates.all, nil)
	}
	if len(gates.free) == 0 {
		gates.free = append(gates.free, uint32(len(gates.all)))
		gates.all = append(gates.all, make(chan struct{}, 1))
	}
	n := gates.free[len(gates.free)-1]
	gates.free = gates.free[:len(gates.free)-1]
	p.State, p.kind, p.Green = 0, byGate, uintptr(n)
	return gates.all[n]
}

// endGate gives p's channel back, which is empty: the signal has been received,
// or will not come.
func (p *Parker) endGate() {
	gates.mu.Lock()
	gates.free = append(gates.free, uint32(p.Green))
	gates.mu.Unlock()
}

// openGate is Signal on a goroutine. p is gone when the value is sent.
func openGate(p *Parker) {
	gates.mu.Lock()
	ch := gates.all[p.Green]
	gates.mu.Unlock()
	atomic.StoreUint32(&p.State, ParkerSignalled)
	ch <- struct{}{} // there is room
}
