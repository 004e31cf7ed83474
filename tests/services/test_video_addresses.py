"""Which addresses mean the same video."""

import unicodedata

import pytest

from app.services.video_addresses import canonical_url
from app.services.video_urls import hash_url

_HOST = "https://host.example"
_YOUTUBE = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
_VIMEO = "https://vimeo.com/76979871"
_DAILYMOTION = "https://www.dailymotion.com/video/x8abc12"


@pytest.mark.parametrize(
    ("canonical", "forms"),
    [
        (
            _YOUTUBE,
            [
                *(f"{_YOUTUBE}&t=90s", f"{_YOUTUBE}&list=PL1&index=3", f"{_YOUTUBE}&feature=shared&pp=a&ab_channel=b"),
                *("https://youtu.be/dQw4w9WgXcQ", "https://youtu.be/dQw4w9WgXcQ?si=x&t=1"),
                *("https://m.youtube.com/watch?app=desktop&v=dQw4w9WgXcQ", "http://youtube.com/watch/?v=dQw4w9WgXcQ"),
                *("https://music.youtube.com/watch?v=dQw4w9WgXcQ&si=x", "https://www.youtube.com/shorts/dQw4w9WgXcQ"),
                *("https://www.youtube.com/embed/dQw4w9WgXcQ?start=4", "https://www.youtube.com/live/dQw4w9WgXcQ?si=a"),
                *("https://www.youtube-nocookie.com/embed/dQw4w9WgXcQ", "https://WWW.YouTube.com/v/dQw4w9WgXcQ#t=1"),
            ],
        ),
        (
            _VIMEO,
            [
                *("https://www.vimeo.com/76979871#t=9s", "https://player.vimeo.com/video/76979871?autoplay=1"),
                *("https://vimeo.com/channels/staffpicks/76979871", "https://vimeo.com/76979871?share=copy"),
            ],
        ),
        (f"{_VIMEO}/ab12cd", ["https://player.vimeo.com/video/76979871?h=ab12cd", f"{_VIMEO}/ab12cd?fl=pl"]),
        (_DAILYMOTION, ["https://dai.ly/x8abc12", f"{_DAILYMOTION}_a-slug", f"{_DAILYMOTION}?playlist=x1"]),
        (
            f"{_HOST}/a/film.mp4",
            [
                *("HTTPS://Host.Example:443/a/film.mp4#t=3", f"{_HOST}/a/film.mp4?utm_source=x&fbclid=y&gclid=z"),
                *(f"{_HOST}/a/film.mp4?", f"{_HOST}/b/../a/./film.mp4", f"{_HOST}/a/%66ilm%2Emp4"),
            ],
        ),
        (f"{_HOST}/my%20caf%C3%A9.mp4", [f"{_HOST}/my café.mp4", f"{_HOST}/my%20caf%c3%a9.mp4"]),
        (f"{_HOST}/get?id=1&b=2", [f"{_HOST}/get?utm_campaign=x&id=1&_ga=3&b=2"]),
        ("https://xn--bcher-kva.example/a.mp4", ["https://bücher.example/a.mp4", "https://BÜCHER.example/a.mp4"]),
        ("http://[2606:4700::1111]/a.mp4", ["http://[2606:4700::1111]:80/a.mp4"]),
    ],
)
def test_all_forms_of_one_address_have_one_canonical_form(canonical: str, forms: list[str]) -> None:
    assert {form: canonical_url(form) for form in forms} == dict.fromkeys(forms, canonical)
    assert canonical_url(canonical) == canonical


def test_letters_are_composed() -> None:
    name = "Crème brûlée"
    composed = canonical_url(f"{_HOST}/{name}.mp4")
    assert canonical_url(f"{_HOST}/{unicodedata.normalize('NFD', name)}.mp4") == composed
    assert canonical_url(f"{_HOST}/Cre%CC%80me%20bru%CC%82le%CC%81e.mp4") == composed


@pytest.mark.parametrize(
    "urls",
    [
        [f"{_HOST}/get.mp4", f"{_HOST}/get.mp4?id=1", f"{_HOST}/get.mp4?id=2", f"{_HOST}/get.mp4?ID=2"],
        [f"{_HOST}/Talk.mp4", f"{_HOST}/talk.mp4", f"{_HOST}/talk.MP4"],
        [f"{_HOST}/a%2Fb.mp4", f"{_HOST}/a/b.mp4", f"{_HOST}/a%252Fb.mp4"],
        [f"{_HOST}/a.mp4?q=a%26b", f"{_HOST}/a.mp4?q=a&b", f"{_HOST}/a.mp4?q=a+b", f"{_HOST}/a.mp4?q=a%2Bb"],
        [f"{_HOST}/a.mp4", "http://host.example/a.mp4", f"{_HOST}:8443/a.mp4", "https://me:pw@host.example/a.mp4"],
        [f"{_HOST}/a.mp4?t=1", f"{_HOST}/a.mp4?t=2", f"{_HOST}/a.mp4?list=1", f"{_HOST}/a.mp4?si=1"],
        [f"{_HOST}/get.mp4?pk_id=1", f"{_HOST}/get.mp4?pk_id=2"],
        [f"{_HOST}//a/./b.mp4", f"{_HOST}//c/./b.mp4", f"{_HOST}/./b.mp4"],
        [f"{_HOST}/film.mp4?X-Goog-Date=1", f"{_HOST}/film.mp4?X-Goog-Date=2"],
        [f"{_HOST}/a.mp4", f"{_HOST}/a.mp4/", f"{_HOST}//a.mp4", f"{_HOST}/%FFa.mp4", f"{_HOST}/%FEa.mp4"],
        [_YOUTUBE, _YOUTUBE.lower(), "https://www.youtube.com/playlist?list=a", "https://tube.example/watch?v=a"],
        ["https://www.youtube.com/embed/videoseries?list=a", "https://www.youtube.com/embed/videoseries?list=b"],
        ["https://youtube.com.evil.example/watch?v=dQw4w9WgXcQ", _YOUTUBE, "https://www.youtube.com/@a/videos"],
        [
            _VIMEO,
            f"{_VIMEO}/ab12cd",
            f"{_VIMEO}/ab12ce",
            "https://vimeo.com/76979872",
            "https://vimeo.com/ondemand/a/1",
        ],
        ["gs://bucket/a b.mp4", "gs://bucket/a%20b.mp4", "gs://bucket/a b.mp4?x=1", "gs://bucket/A b.mp4"],
    ],
)
def test_addresses_that_may_lead_to_two_videos_stay_two(urls: list[str]) -> None:
    assert len({canonical_url(url) for url in urls}) == len(urls)
    assert len({hash_url(url) for url in urls}) == len(urls)
