// A mochi-mqtt broker on the address that is given, until SIGTERM; the tests start it.
package main

import (
	"fmt"
	"log"
	"math"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// inOrder numbers the messages in their field Created, by which mochi sorts what it sends again. By itself it
// puts the second there, and what came within one second would be sent again in any order.
// It also says which acknowledgements are for nothing that the broker has sent.
type inOrder struct {
	mqtt.HookBase
	count atomic.Int64
}

func (*inOrder) ID() string { return "in-order" }

func (*inOrder) Provides(event byte) bool {
	return event == mqtt.OnPublish || event == mqtt.OnPacketRead
}

func (hook *inOrder) OnPublish(_ *mqtt.Client, packet packets.Packet) (packets.Packet, error) {
	packet.Created = hook.count.Add(1)
	return packet, nil
}

func (*inOrder) OnPacketRead(client *mqtt.Client, packet packets.Packet) (packets.Packet, error) {
	if packet.FixedHeader.Type == packets.Puback || packet.FixedHeader.Type == packets.Pubrec {
		if _, known := client.State.Inflight.Get(packet.PacketID); !known {
			fmt.Println("unknown acknowledgement", packet.PacketID)
		}
	}
	return packet, nil
}

func main() {
	capabilities := mqtt.NewDefaultServerCapabilities()
	// Beyond these limits it drops messages; what a test loses is to be the bridge's fault.
	capabilities.MaximumInflight = math.MaxUint16
	capabilities.MaximumClientWritesPending = math.MaxUint16
	// It counts from Created, which is no time here.
	capabilities.MaximumMessageExpiryInterval = 0
	server := mqtt.New(&mqtt.Options{Capabilities: capabilities})
	must(server.AddHook(new(auth.AllowHook), nil))
	must(server.AddHook(new(inOrder), nil))
	must(server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: os.Args[1]})))
	must(server.Serve())
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
	must(server.Close())
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
