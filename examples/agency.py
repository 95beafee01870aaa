"""An agency that books for examples/planner.py. A key books once, however often it is asked for."""

import os

import bus

bot = bus.Bot("agency", url=os.environ.get("POSTHOUSE_URL"))

# What is booked, by key. A real agency has a database for this.
bookings: dict[str, str] = {}


@bot.on_message("book")
async def book(message: bus.Message) -> str:
    key = message.body
    if key not in bookings:
        bookings[key] = f"{key.rpartition('/')[2]} of {key[:8]}"
        print(f"booked {bookings[key]}", flush=True)
    return bookings[key]


@bot.on_message("give back")
async def give_back(message: bus.Message) -> str:
    booking = bookings.pop(message.body, None)
    if booking is None:
        return "nothing was booked"  # an answer in any case: None would be none
    print(f"given back {booking}", flush=True)
    return f"{booking} is given back"


if __name__ == "__main__":
    bot.run(concurrency=10)
