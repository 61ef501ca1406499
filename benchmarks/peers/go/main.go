// Echo and hello in Go as one writes them: a goroutine a connection.
//
//	main echo|hello|udp PORT
package main

import (
	"fmt"
	"net"
	"os"
)

const size = 64 * 1024

func fail(what any) {
	fmt.Fprintln(os.Stderr, "go:", what)
	os.Exit(1)
}

func echo(connection net.Conn) {
	defer connection.Close()
	data := make([]byte, size)
	for {
		count, err := connection.Read(data)
		if err != nil {
			return
		}
		if _, err = connection.Write(data[:count]); err != nil {
			return
		}
	}
}

func hello(connection net.Conn) {
	defer connection.Close()
	if _, err := connection.Write([]byte("Welcome!")); err != nil {
		return
	}
	data, answer := make([]byte, size), make([]byte, 0, size+8)
	for {
		count, err := connection.Read(data)
		if err != nil || string(data[:count]) == "exit" {
			return
		}
		answer = append(append(append(answer[:0], "Hello, "...), data[:count]...), '!')
		if _, err = connection.Write(answer); err != nil {
			return
		}
	}
}

func udp(place string) {
	address, err := net.ResolveUDPAddr("udp4", place)
	if err != nil {
		fail(err)
	}
	socket, err := net.ListenUDP("udp4", address)
	if err != nil {
		fail(err)
	}
	data := make([]byte, size)
	for {
		if count, peer, err := socket.ReadFromUDPAddrPort(data); err == nil {
			socket.WriteToUDPAddrPort(data[:count], peer)
		}
	}
}

func main() {
	if len(os.Args) != 3 {
		fail("usage: main echo|hello|udp PORT")
	}
	place := "127.0.0.1:" + os.Args[2]
	if os.Args[1] == "udp" {
		udp(place)
	}
	converse := echo
	if os.Args[1] == "hello" {
		converse = hello
	}
	listening, err := net.Listen("tcp4", place)
	if err != nil {
		fail(err)
	}
	for {
		if connection, err := listening.Accept(); err == nil {
			go converse(connection)
		}
	}
}
